//! Runs in memory, for tests and development. It shows what a store does. Lists are slow.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::{
    COUNTED, Change, Created, Cursor, ENTRIES, Entry, Error, Execution, FIRST_ENTRIES, Filter,
    Future, Idempotency, Listed, NewRun, Page, Place, Query, Store, StoredRun, Token,
};
use podbeat_runs::Status;

/// A store in memory.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    numbers: u64,
    runs: BTreeMap<u64, StoredRun>,
    /// The numbers of the runs, by their IDs.
    by_id: HashMap<String, u64>,
    executions: BTreeMap<u64, Execution>,
    timelines: BTreeMap<u64, Vec<Entry>>,
    /// By tenant and key.
    idempotency: BTreeMap<(String, String), (Idempotency, u64)>,
    tokens: BTreeMap<String, Token>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done<T: Send + 'static>(result: Result<T, Error>) -> Future<'static, T> {
    Box::pin(std::future::ready(result))
}

impl State {
    fn create(&mut self, new: NewRun) -> Result<Created, Error> {
        let facts = &new.facts;
        self.idempotency
            .retain(|_, (idempotency, _)| idempotency.until > facts.created);
        if let Some(idempotency) = &new.idempotency {
            let key = (facts.tenant.clone(), idempotency.key.clone());
            if let Some((before, number)) = self.idempotency.get(&key) {
                if before.request != idempotency.request {
                    return Ok(Created::OtherRequest);
                }
                if let Some(run) = self.runs.get(number) {
                    return Ok(Created::Before(run.clone()));
                }
            }
        }
        let of_tenant = || {
            self.runs
                .values()
                .filter(|run| run.facts.tenant == facts.tenant)
        };
        // Fewer runs than the limit need no count.
        let may_reach = |limit| self.runs.len() as u64 >= limit;
        let live = || of_tenant().filter(|run| !run.run.status().is_final());
        if may_reach(new.limits.live) && live().count() as u64 >= new.limits.live {
            return Ok(Created::TooManyLive);
        }
        let is_recent = |run: &&StoredRun| {
            run.facts.created > new.limits.since && run.facts.created <= facts.created
        };
        let creates = || of_tenant().filter(is_recent);
        if may_reach(new.limits.creates) && creates().count() as u64 >= new.limits.creates {
            return Ok(Created::TooManyCreates);
        }
        if self.by_id.contains_key(&facts.id) {
            return Err(Error::Exists(facts.id.clone()));
        }
        self.numbers += 1;
        let run = StoredRun {
            number: self.numbers,
            version: 0,
            facts: facts.clone(),
            modified_by: facts.created_by.clone(),
            modified: facts.created,
            seen: None,
            run: new.run,
        };
        self.by_id.insert(facts.id.clone(), run.number);
        self.runs.insert(run.number, run.clone());
        if let Some(execution) = new.execution {
            self.executions.insert(run.number, execution);
        }
        if let Some(idempotency) = new.idempotency {
            let key = (facts.tenant.clone(), idempotency.key.clone());
            self.idempotency.insert(key, (idempotency, run.number));
        }
        Ok(Created::New(run))
    }

    fn change(&mut self, change: Change) -> Result<(), Error> {
        let run = self.runs.get_mut(&change.number);
        let Some(run) = run.filter(|run| run.version == change.version) else {
            return Err(Error::Stale(change.id));
        };
        run.version += 1;
        run.modified_by = change.by;
        run.modified = change.at;
        run.seen = change.seen.or(run.seen);
        run.run = change.run;
        let is_final = run.run.status().is_final();
        if let Some(execution) = self.executions.get_mut(&change.number).filter(|_| is_final) {
            execution.sealed = None;
        }
        let timeline = self.timelines.entry(change.number).or_default();
        timeline.extend(change.timeline);
        let surplus = timeline.len().saturating_sub(ENTRIES);
        timeline.drain(
            FIRST_ENTRIES.min(timeline.len())..(FIRST_ENTRIES + surplus).min(timeline.len()),
        );
        Ok(())
    }

    fn forget(&mut self, ended_before: Timestamp, most: u64, batch: u32) -> Vec<String> {
        let surplus = (self.runs.len() as u64).saturating_sub(most);
        let ended = self.runs.values().filter(|run| run.run.status().is_final());
        let mut ended: Vec<(Timestamp, u64)> =
            ended.map(|run| (run.modified, run.number)).collect();
        ended.sort_unstable();
        let gone = ended
            .into_iter()
            .take(batch as usize)
            .zip(1..)
            .filter(|((modified, _), place)| *modified < ended_before || *place <= surplus)
            .map(|((_, number), _)| number);
        let gone: Vec<u64> = gone.collect();
        let removed = gone.iter().filter_map(|number| {
            self.executions.remove(number);
            self.timelines.remove(number);
            let run = self.runs.remove(number)?;
            self.by_id.remove(&run.facts.id);
            Some(run)
        });
        removed.map(|run| run.facts.id).collect()
    }
}

fn listed(run: &StoredRun) -> Listed {
    Listed {
        number: run.number,
        facts: run.facts.clone(),
        status: run.run.status(),
        details: run.run.details().map(str::to_owned),
        modified_by: run.modified_by.clone(),
        modified: run.modified,
        seen: run.seen,
    }
}

fn passes(run: &StoredRun, filter: &Filter) -> bool {
    let name = run.facts.name.as_deref();
    let acl = run.facts.acl.as_deref().unwrap_or_default();
    let begins = |search: &String| {
        name.unwrap_or_default().starts_with(search) || run.facts.id.starts_with(search)
    };
    !filter.none
        && (filter.names.is_empty() || filter.names.iter().any(|wanted| name == Some(wanted)))
        && (filter.statuses.is_empty() || filter.statuses.contains(&run.run.status()))
        && (filter.acls.is_empty() || filter.acls.iter().any(|wanted| acl.contains(wanted)))
        && filter.search.as_ref().is_none_or(begins)
}

fn compare(query: &Query, one: &Cursor, other: &Cursor) -> Ordering {
    let directed = |ordering: Ordering, descending: bool| match descending {
        false => ordering,
        true => ordering.reverse(),
    };
    let keys = one.keys.iter().zip(&other.keys);
    query
        .sort
        .iter()
        .zip(keys)
        .map(|(sort, (one, other))| directed(one.cmp(other), sort.descending))
        .find(|ordering| ordering.is_ne())
        .unwrap_or_else(|| directed(one.number.cmp(&other.number), query.newest_first()))
}

fn page(runs: &BTreeMap<u64, StoredRun>, query: &Query) -> Page {
    let mut all: Vec<(Cursor, Listed)> = runs
        .values()
        .filter(|run| query.viewer.sees(run) && passes(run, &query.filter))
        .map(listed)
        .map(|run| (query.cursor(&run), run))
        .collect();
    all.sort_by(|(one, _), (other, _)| compare(query, one, other));
    let total = all.len();
    let (begin, end) = match &query.place {
        Place::First => (0, query.size),
        Place::After(cursor) => {
            let begin = all.partition_point(|(run, _)| compare(query, run, cursor).is_le());
            (begin, begin.saturating_add(query.size))
        }
        Place::Before(cursor) => {
            let end = all.partition_point(|(run, _)| compare(query, run, cursor).is_lt());
            (end.saturating_sub(query.size), end)
        }
        Place::Last => {
            let begin = total.saturating_sub(1) / query.size.max(1) * query.size;
            (begin, total)
        }
    };
    let end = end.min(total);
    let counted = match query.filter.search {
        Some(_) => (total as u64).min(COUNTED),
        None => total as u64,
    };
    Page {
        has_previous: begin > 0,
        has_next: end < total,
        runs: all.drain(begin.min(end)..end).map(|(_, run)| run).collect(),
        total: counted,
    }
}

impl Store for Memory {
    fn create(&self, run: NewRun) -> Future<'_, Created> {
        done(self.state().create(run))
    }

    fn change(&self, change: Change) -> Future<'_, ()> {
        done(self.state().change(change))
    }

    fn seen(&self, runs: Vec<(u64, Timestamp)>) -> Future<'_, ()> {
        let mut state = self.state();
        for (number, at) in runs {
            if let Some(run) = state.runs.get_mut(&number) {
                run.seen = Some(at);
            }
        }
        done(Ok(()))
    }

    fn run(&self, id: String) -> Future<'_, Option<StoredRun>> {
        let state = self.state();
        let found = state
            .by_id
            .get(&id)
            .and_then(|number| state.runs.get(number));
        done(Ok(found.cloned()))
    }

    fn live(&self) -> Future<'_, Vec<StoredRun>> {
        let state = self.state();
        let live = state
            .runs
            .values()
            .filter(|run| !run.run.status().is_final());
        done(Ok(live.cloned().collect()))
    }

    fn execution(&self, number: u64) -> Future<'_, Option<Execution>> {
        done(Ok(self.state().executions.get(&number).cloned()))
    }

    fn list(&self, query: Query) -> Future<'_, Page> {
        done(Ok(page(&self.state().runs, &query)))
    }

    fn counts(&self) -> Future<'_, Vec<(Status, u64)>> {
        let state = self.state();
        let count = |status| {
            let of_status = state.runs.values().filter(|run| run.run.status() == status);
            (status, of_status.count() as u64)
        };
        done(Ok(Status::ALL.map(count).to_vec()))
    }

    fn timeline(&self, number: u64) -> Future<'_, Vec<Entry>> {
        done(Ok(self
            .state()
            .timelines
            .get(&number)
            .cloned()
            .unwrap_or_default()))
    }

    fn forget(&self, ended_before: Timestamp, most: u64, batch: u32) -> Future<'_, Vec<String>> {
        done(Ok(self.state().forget(ended_before, most, batch)))
    }

    fn add_token(&self, token: Token) -> Future<'_, ()> {
        self.state().tokens.insert(token.id.clone(), token);
        done(Ok(()))
    }

    fn token(&self, hash: [u8; 32]) -> Future<'_, Option<Token>> {
        let state = self.state();
        let found = state.tokens.values().find(|token| token.hash == hash);
        done(Ok(found.cloned()))
    }

    fn tokens(&self) -> Future<'_, Vec<Token>> {
        let mut all: Vec<Token> = self.state().tokens.values().cloned().collect();
        all.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        done(Ok(all))
    }

    fn revoke(&self, id: String, at: Timestamp) -> Future<'_, bool> {
        let mut state = self.state();
        let token = state.tokens.get_mut(&id);
        let exists = token.is_some();
        if let Some(token) = token {
            token.revoked.get_or_insert(at);
        }
        done(Ok(exists))
    }

    fn check(&self) -> Future<'_, ()> {
        done(Ok(()))
    }
}
