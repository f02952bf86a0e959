//! Settings by namespace, remembered for some seconds: events ask for them, a thousand a second.

use super::{Settings, Unseen};
use crate::host::Host;
use crate::host::netns::{self, Namespace};
use foldhash::{HashMap, HashMapExt};
use std::fmt;
use std::time::{Duration, Instant};

/// Settings are at most this old.
const FRESH: Duration = Duration::from_secs(10);
/// A namespace that could not be looked at is not tried again sooner, and `/proc` is not searched for processes sooner.
const RETRY: Duration = Duration::from_secs(5);
/// Namespaces remembered; more than hosts have. An entry has some hundred bytes.
const CAPACITY: usize = 1024;

type Read = dyn FnMut(&Namespace) -> Result<Settings, Unseen> + Send;

/// The settings of the namespaces that were asked for lately.
pub struct Cache {
    host: Host,
    read: Box<Read>,
    spaces: HashMap<u32, Space>,
    /// Where namespaces can be entered: what the last search found, and what was learnt from owners since.
    homes: HashMap<u32, Namespace>,
    searched: Option<Instant>,
}

/// What came of asking.
#[derive(Clone, Copy)]
struct Space {
    settings: Option<Settings>,
    /// Nobody was known to live in it.
    homeless: bool,
    asked: Instant,
    used: Instant,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("spaces", &self.spaces.len()).finish_non_exhaustive()
    }
}

impl Cache {
    pub fn new(host: &Host) -> Self {
        let reader = host.clone();
        Self::reading(host, Box::new(move |namespace| super::settings(&reader, namespace)))
    }

    fn reading(host: &Host, read: Box<Read>) -> Self {
        let own = host.proc.own_netns().map(|inode| {
            (inode, Namespace { inode, pid: Some(host.proc.own_pid()), ..Namespace::default() })
        });
        Self {
            host: host.clone(),
            read,
            spaces: HashMap::new(),
            homes: own.into_iter().collect(),
            searched: None,
        }
    }

    /// The settings of a namespace; `None` if they cannot be read now. `resident` is a process that may live there, such as
    /// the owner of the socket: it spares the search.
    ///
    /// Takes some hundred microseconds when they have to be read, and a search through `/proc` every few seconds at most.
    pub fn settings(&mut self, netns: u32, resident: Option<u32>) -> Option<Settings> {
        self.settings_at(netns, resident, Instant::now())
    }

    /// The same, for who knows the time and asks often.
    pub fn settings_at(&mut self, netns: u32, resident: Option<u32>, now: Instant) -> Option<Settings> {
        if let Some(space) = self.spaces.get_mut(&netns) {
            space.used = now;
            let age = now.saturating_duration_since(space.asked);
            match space.settings {
                Some(settings) if age < FRESH => return Some(settings),
                // A resident is worth a try where nobody was known.
                None if age < RETRY && !(space.homeless && resident.is_some()) => return None,
                _ => {}
            }
        } else if self.spaces.len() >= CAPACITY {
            self.forget();
        }
        self.learn(netns, resident);
        let settings = self.ask(netns, now);
        let homeless = !self.homes.contains_key(&netns);
        self.spaces.insert(netns, Space { settings, homeless, asked: now, used: now });
        settings
    }

    /// Notes who lives in a namespace that has no known home.
    fn learn(&mut self, netns: u32, resident: Option<u32>) {
        let lives_there = |pid: &u32| self.host.proc.netns(*pid) == Some(netns);
        if self.homes.contains_key(&netns) || self.homes.len() >= CAPACITY {
            return;
        }
        if let Some(pid) = resident.filter(lives_there) {
            self.homes.insert(netns, Namespace { inode: netns, pid: Some(pid), name: None });
        }
    }

    /// Reads where the namespace was last seen, and if it is not there any more, where a search finds it.
    fn ask(&mut self, netns: u32, now: Instant) -> Option<Settings> {
        if let Some(home) = self.homes.get(&netns)
            && let Ok(settings) = (self.read)(home)
        {
            return Some(settings);
        }
        if self.searched.is_some_and(|last| now.saturating_duration_since(last) < RETRY) {
            return None;
        }
        self.searched = Some(now);
        self.homes = netns::list(&self.host).into_iter().map(|space| (space.inode, space)).collect();
        (self.read)(self.homes.get(&netns)?).ok()
    }

    /// Drops what was not asked for longest.
    fn forget(&mut self) {
        if let Some((&oldest, _)) = self.spaces.iter().min_by_key(|(_, space)| space.used) {
            self.spaces.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{Process, Tree};
    use std::sync::{Arc, Mutex};

    type Asked = Arc<Mutex<Vec<u32>>>;

    /// A cache whose reader says the pid that it was led to as `tcp_fin_timeout`, and fails where there is none.
    fn cache(tree: &Tree) -> (Cache, Asked) {
        let asked = Asked::default();
        let (log, host) = (Arc::clone(&asked), tree.host());
        let read = move |namespace: &Namespace| {
            let pid = namespace.pid.filter(|pid| host.proc.netns(*pid) == Some(namespace.inode));
            log.lock().unwrap().push(namespace.inode);
            let settings = Settings { tcp_fin_timeout: pid, ..Settings::default() };
            if pid.is_some() { Ok(settings) } else { Err(Unseen { why: "gone".to_owned() }) }
        };
        (Cache::reading(&tree.host(), Box::new(read)), asked)
    }

    fn space(tree: &Tree, pid: u32, netns: u32) {
        tree.process(pid, &Process { netns, ..Process::PLAIN });
    }

    fn led_to(settings: Option<Settings>) -> Option<u32> {
        settings.and_then(|settings| settings.tcp_fin_timeout)
    }

    #[test]
    fn settings_are_read_once_in_ten_seconds() {
        let tree = Tree::new();
        space(&tree, 5, 11);
        let (mut cache, asked) = cache(&tree);
        let start = Instant::now();
        for at in 0..100 {
            assert_eq!(led_to(cache.settings_at(11, None, start + at * FRESH / 100)), Some(5));
        }
        assert_eq!(asked.lock().unwrap().len(), 1);
        cache.settings_at(11, None, start + FRESH);
        assert_eq!(asked.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_namespace_without_process_is_searched_every_few_seconds() {
        let tree = Tree::new();
        let (mut cache, asked) = cache(&tree);
        let start = Instant::now();
        assert_eq!(cache.settings_at(11, None, start), None);
        space(&tree, 5, 11);
        assert_eq!(cache.settings_at(11, None, start + RETRY / 2), None);
        // Others do not search either meanwhile.
        space(&tree, 6, 12);
        assert_eq!(cache.settings_at(12, None, start + RETRY / 2), None);
        assert_eq!(*asked.lock().unwrap(), [0_u32; 0], "nothing to read");
        assert_eq!(led_to(cache.settings_at(11, None, start + RETRY)), Some(5));
    }

    #[test]
    fn the_owner_of_a_socket_leads_to_its_namespace() {
        let tree = Tree::new();
        let (mut cache, _) = cache(&tree);
        let start = Instant::now();
        assert_eq!(cache.settings_at(11, Some(5), start), None, "not there");
        space(&tree, 5, 12);
        assert_eq!(cache.settings_at(11, Some(5), start), None, "lives elsewhere");
        space(&tree, 6, 11);
        assert_eq!(led_to(cache.settings_at(11, Some(6), start)), Some(6));
    }

    #[test]
    fn a_namespace_is_found_again_when_its_process_has_gone() {
        let tree = Tree::new();
        space(&tree, 5, 11);
        let (mut cache, _) = cache(&tree);
        let start = Instant::now();
        assert_eq!(led_to(cache.settings_at(11, None, start)), Some(5));
        tree.remove("proc/5");
        space(&tree, 6, 11);
        assert_eq!(led_to(cache.settings_at(11, None, start + FRESH)), Some(6));
        tree.remove("proc/6");
        assert_eq!(cache.settings_at(11, None, start + 2 * FRESH), None, "not what it was ten seconds ago");
    }

    #[test]
    fn a_namespace_that_may_not_be_entered_is_not_tried_for_each_event() {
        let tree = Tree::new();
        space(&tree, 5, 11);
        let (mut cache, asked) = cache(&tree);
        let count = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&count);
        cache.read = Box::new(move |_| {
            *counter.lock().unwrap() += 1;
            Err(Unseen { why: "refused".to_owned() })
        });
        let start = Instant::now();
        for at in 0..1000 {
            assert_eq!(cache.settings_at(11, Some(5), start + at * RETRY / 1000), None);
        }
        assert_eq!(*count.lock().unwrap(), 2, "where the owner led, and where the search did");
        assert!(asked.lock().unwrap().is_empty());
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let tree = Tree::new();
        space(&tree, 5, 11);
        let (mut cache, asked) = cache(&tree);
        let start = Instant::now();
        for other in 0..3000 {
            let now = start + Duration::from_micros(u64::from(other));
            assert_eq!(led_to(cache.settings_at(11, None, now)), Some(5));
            cache.settings_at(100_000 + other, None, now);
            assert!(cache.spaces.len() <= CAPACITY && cache.homes.len() <= CAPACITY);
        }
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_own_namespace_is_read_without_a_search() {
        let host = Host::live();
        let mut cache = Cache::new(&host);
        let settings = cache.settings(host.proc.own_netns().unwrap(), None).unwrap();
        assert!(settings.tcp_fin_timeout.is_some() && settings.somaxconn.is_some(), "{settings:?}");
        assert_eq!(cache.searched, None);
    }
}
