//! How long pages of a long list take.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::client::{Client, call};
use super::data::{ADMIN, DataFile, USER};
use super::figures::{Figure, Limit};
use super::started::Program;
use super::{Plan, RUNS};
use crate::Error;
use crate::peers::results::percentile;

/// The number of runs on a measured page.
const PAGE: usize = 100;

/// The number of runs on the largest page, for the walk to the middle of a list.
const LARGEST: usize = 1000;

/// The limit of a page, in milliseconds.
const PAGE_MS: f64 = 20.0;

/// The lists whose first, middle and last page are measured: a title, and the query.
const LISTS: [(&str, &str); 3] = [
    ("", ""),
    ("status Failed, ", "&status=failed"),
    ("by name, ", "&sort=name"),
];

/// The lists whose first page is measured.
const FIRST_PAGES: [(&str, &str); 3] = [
    ("status Running, ", "&status=running"),
    ("status Running, by name, ", "&status=running&sort=name"),
    ("status Failed, by name, ", "&status=failed&sort=name"),
];

pub(super) async fn measure(
    program: &Program,
    plan: &Plan,
    data: &DataFile,
) -> Result<Vec<Figure>, Error> {
    let server = program.start(&data.path, data).await?;
    let mut figures = Vec::new();
    for (title, user) in [("an admin", ADMIN), ("a user", USER)] {
        let mut reader = Reader {
            client: server.target.client().await?,
            authorization: user.authorization(),
        };
        let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
        for (list, query) in LISTS {
            let first = format!("?pageSize={PAGE}{query}");
            let page = reader.page(&first).await?;
            let last = token(&page, "lastPageToken");
            let middle = reader.middle(query).await?;
            kinds.push((format!("{list}first"), vec![first]));
            kinds.push((format!("{list}middle"), middle));
            kinds.push((format!("{list}last"), last.into_iter().collect()));
        }
        for (list, query) in FIRST_PAGES {
            let first = format!("?pageSize={PAGE}{query}");
            kinds.push((format!("{list}first"), vec![first]));
        }
        for (kind, queries) in &kinds {
            let mut p99 = Vec::new();
            for _ in 0..plan.rounds {
                p99.extend(percentile(&reader.times(queries, plan.pages).await?, 99));
            }
            let name = format!(
                "p99 of a page of {PAGE} of {} runs for {title}: {kind}",
                plan.runs
            );
            figures.push(Figure::new(name, "ms", p99).with(Limit::Below(PAGE_MS)));
        }
        let largest = [format!("?pageSize={LARGEST}")];
        let times = reader.times(&largest, plan.pages).await?;
        let name = format!(
            "p99 of a page of {LARGEST} of {} runs for {title}: first",
            plan.runs
        );
        figures.push(Figure::new(
            name,
            "ms",
            percentile(&times, 99).into_iter().collect(),
        ));
    }
    server.stop().await?;
    Ok(figures)
}

struct Reader {
    client: Client,
    authorization: HeaderValue,
}

impl Reader {
    async fn read(&mut self, query: &str) -> Result<Bytes, Error> {
        let path = format!("{RUNS}{query}");
        let call = call(Method::GET, &path, self.authorization.clone(), Bytes::new());
        self.client.expect("a list", call, StatusCode::OK).await
    }

    async fn page(&mut self, query: &str) -> Result<Value, Error> {
        let body = self.read(query).await?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Walks to the middle of a list. Returns pages of the second quarter.
    async fn middle(&mut self, query: &str) -> Result<Vec<String>, Error> {
        let mut page = self.page(&format!("?pageSize={LARGEST}{query}")).await?;
        let pages = page.get("totalPageCount").and_then(Value::as_u64);
        let half = usize::try_from(pages.unwrap_or_default() / 2).unwrap_or(0);
        let mut seen = Vec::new();
        while seen.len() < half
            && let Some(next) = token(&page, "nextPageToken")
        {
            page = self.page(&next).await?;
            // The token keeps the place and the order, and the page gets another size.
            seen.push(format!("{next}&pageSize={PAGE}"));
        }
        match seen.is_empty() {
            // The list is too short for a walk.
            true => Ok(vec![format!("?pageSize={PAGE}{query}")]),
            false => Ok(seen.split_off(seen.len() / 2)),
        }
    }

    /// The times of so many pages, in milliseconds.
    async fn times(&mut self, queries: &[String], pages: usize) -> Result<Vec<f64>, Error> {
        let mut times = Vec::with_capacity(pages);
        for query in queries.iter().cycle().take(pages) {
            let begun = Instant::now();
            self.read(query).await?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times)
    }
}

fn token(page: &Value, name: &str) -> Option<String> {
    let token = page.get(name)?.as_str()?;
    Some(format!("?pageToken={token}"))
}
