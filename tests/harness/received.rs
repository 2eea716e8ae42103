//! Waits for what the stand-ins receive.

use podbeat_lab::kube_api::KubeApi;
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;

use super::LIMIT;

pub(crate) async fn until(
    world: &World,
    what: &str,
    reached: impl Fn(&[Heartbeat]) -> bool,
) -> Vec<Heartbeat> {
    world
        .service
        .wait_for(what, LIMIT, reached)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Waits for a heartbeat with this property, accepted or not.
pub(crate) async fn until_one(world: &World, what: &str, is: impl Fn(&Heartbeat) -> bool) {
    until(world, what, |heartbeats| heartbeats.iter().any(&is)).await;
}

pub(crate) fn main_is(heartbeat: &Heartbeat, state: &str) -> bool {
    heartbeat
        .state("main")
        .is_some_and(|(name, _)| name == state)
}

/// Waits until the service accepted a heartbeat with `main` in this state.
pub(crate) async fn until_main_is(world: &World, state: &str) {
    until_one(world, &format!("main to be {state}"), |heartbeat| {
        heartbeat.accepted && main_is(heartbeat, state)
    })
    .await;
}

/// Waits until the service accepted a last heartbeat.
pub(crate) async fn until_final(world: &World) -> Heartbeat {
    let heartbeats = until(world, "an accepted final", |heartbeats| {
        heartbeats
            .iter()
            .any(|heartbeat| heartbeat.accepted && heartbeat.is_final())
    })
    .await;
    heartbeats
        .into_iter()
        .rfind(|heartbeat| heartbeat.accepted)
        .expect("just seen")
}

pub(crate) async fn until_asked(world: &World, what: &str, reached: impl Fn(&KubeApi) -> bool) {
    world
        .kube
        .wait_for(what, LIMIT, reached)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}
