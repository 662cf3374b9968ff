use bytes::Bytes;
use walproto::{Lsn, TimelineHistory};

use super::*;

const SEGMENT: SegmentSize = SegmentSize::DEFAULT;
const NO: Suits = Suits::No {
    wanted: "primary",
    found: "server is in hot standby mode",
};

/// A server in a line: the timeline, its history, the end of its WAL, and what else it is.
struct Host {
    upstream: Upstream,
    system_id: SystemId,
    suits: Suits,
    kin: Kin,
}

fn host(timeline: u32, history: &'static str, flush: u64) -> Host {
    let timeline = TimelineId::new(timeline).unwrap();
    let content = Bytes::from_static(history.as_bytes());
    Host {
        upstream: Upstream {
            history: TimelineHistory::parse(timeline, content).unwrap(),
            flush: Lsn(flush),
            is_standby: false,
        },
        system_id: SystemId(1),
        suits: Suits::Well,
        kin: Kin::Ours,
    }
}

impl Host {
    fn standby(mut self) -> Self {
        self.upstream.is_standby = true;
        self
    }

    fn suits(self, suits: Suits) -> Self {
        Self { suits, ..self }
    }

    fn kin(self, kin: Kin) -> Self {
        Self { kin, ..self }
    }

    fn cluster(self, id: u64) -> Self {
        let system_id = SystemId(id);
        Self { system_id, ..self }
    }
}

/// An outcome in a word: the place of the chosen one, those refused and why; or who stops it.
fn decided(held: Option<(u32, u64)>, hosts: &[Host], follow_fork: bool) -> String {
    let held = held.map(|(timeline, record_end)| Held {
        timeline: TimelineId::new(timeline).unwrap(),
        record_end: Lsn(record_end),
        resume_at: Lsn(record_end).align_down(8192),
    });
    let candidates: Vec<_> = hosts
        .iter()
        .map(|host| Candidate {
            system_id: host.system_id,
            upstream: &host.upstream,
            suits: host.suits,
            kin: host.kin,
        })
        .collect();
    let word = |refusal: &Refusal| {
        let text = format!("{refusal:?}");
        text.split([' ', '(']).next().unwrap().to_owned()
    };
    match choose(held.as_ref(), &candidates, SEGMENT, follow_fork) {
        Ok(Choice { chosen, refused }) => {
            let chosen = chosen.map_or("none".to_owned(), |index| index.to_string());
            let refused = refused
                .iter()
                .map(|(index, refusal)| format!(" {index}:{}", word(refusal)));
            chosen + &refused.collect::<String>()
        }
        Err(Split { servers, refusal }) => format!("stop {servers:?} {}", word(&refusal)),
    }
}

const FORK: &str = "1\t0/3000100\tx\n";
const PROMOTED: &str = "1\t0/3005000\tx\n";
const HELD: Option<(u32, u64)> = Some((1, 0x300_4010));

/// What it is about, what the archive holds, the hosts, and what is decided.
type Case = (&'static str, Option<(u32, u64)>, Vec<Host>, &'static str);

#[track_caller]
fn check(cases: impl IntoIterator<Item = Case>) {
    for (what, held, hosts, expected) in cases {
        assert_eq!(decided(held, &hosts, false), expected, "{what}");
    }
}

/// A primary, or a standby of it, that has more than the archive.
fn old() -> Host {
    host(1, "", 0x300_6000)
}

#[test]
fn the_newest_timeline_of_all_hosts_decides() {
    check([
        ("one host", HELD, vec![old()], "0"),
        (
            "a zombie, and one that was promoted with our tail",
            HELD,
            vec![old(), host(2, PROMOTED, 0x301_0000)],
            "1 0:Superseded",
        ),
        (
            "a zombie, and one that was promoted without our tail",
            HELD,
            vec![old(), host(2, FORK, 0x301_0000)],
            "stop [1] Forked",
        ),
        (
            "the same, and it does not suit target_session_attrs",
            HELD,
            vec![old(), host(2, FORK, 0x301_0000).standby().suits(NO)],
            "stop [1] Forked",
        ),
        (
            "one that was promoted and does not suit",
            HELD,
            vec![old(), host(2, PROMOTED, 0x301_0000).suits(NO)],
            "none 0:Superseded",
        ),
        (
            "two that were promoted apart from each other",
            HELD,
            vec![host(2, PROMOTED, 0x301_0000), host(2, FORK, 0x301_0000)],
            "stop [0, 1] SplitTimeline",
        ),
        (
            "the same on a first start",
            None,
            vec![host(2, PROMOTED, 0x301_0000), host(2, FORK, 0x301_0000)],
            "stop [0, 1] SplitTimeline",
        ),
        (
            "another branch",
            Some((2, 0x300_4010)),
            vec![host(2, FORK, 0x300_6000), host(3, PROMOTED, 0x301_0000)],
            "stop [1] ForeignTimeline",
        ),
        (
            "a newer one that contradicts the archive",
            Some((2, 0x300_4010)),
            vec![
                host(2, FORK, 0x300_6000),
                host(3, "1\t0/3000200\tx\n2\t0/3005000\tx\n", 0x301_0000).kin(Kin::Contradicts),
            ],
            "stop [1] ForeignTimeline",
        ),
        (
            "one of the archive's timeline that contradicts it",
            Some((2, 0x300_4010)),
            vec![
                host(2, PROMOTED, 0x301_0000).kin(Kin::Contradicts),
                host(2, FORK, 0x300_6000),
            ],
            "1",
        ),
    ]);
}

#[test]
fn a_host_that_is_behind_or_of_another_cluster_does_not_hinder_the_right_one() {
    check([
        (
            "a standby that has not followed the promotion yet",
            HELD,
            vec![
                old().standby(),
                host(2, PROMOTED, 0x301_0000).standby().suits(NO),
            ],
            "0",
        ),
        (
            "older ones only",
            Some((2, 0x300_4010)),
            vec![old(), old().standby()],
            "1 0:OlderTimeline",
        ),
        (
            "one that lost WAL",
            HELD,
            vec![host(1, "", 0x300_4000), old().standby()],
            "1 0:LostWal",
        ),
        (
            "a standby that is behind",
            HELD,
            vec![host(1, "", 0x300_4000).standby(), old()],
            "1",
        ),
        (
            "one of another cluster",
            HELD,
            vec![
                host(7, PROMOTED, 0x900_0000).cluster(2).kin(Kin::Foreign),
                old(),
            ],
            "1",
        ),
        (
            "two clusters on a first start",
            None,
            vec![old(), old().cluster(2)],
            "stop [0, 1] TwoClusters",
        ),
        (
            "a zombie on a first start",
            None,
            vec![old(), host(2, PROMOTED, 0x301_0000)],
            "1 0:Superseded",
        ),
        (
            "prefer-standby",
            HELD,
            vec![old().suits(Suits::Fallback), old().standby(), old()],
            "1",
        ),
        (
            "prefer-standby, and it is behind",
            HELD,
            vec![
                old().suits(Suits::Fallback),
                host(1, "", 0x300_4000).standby(),
            ],
            "0",
        ),
        (
            "no host of our cluster",
            HELD,
            vec![old().kin(Kin::Foreign)],
            "none",
        ),
    ]);
}

#[test]
fn a_fork_is_followed_when_told_and_no_host_before_it() {
    let hosts = [host(1, "", 0x300_6000), host(2, FORK, 0x301_0000)];
    assert_eq!(decided(HELD, &hosts, true), "1 0:Superseded");
    let hosts = [host(1, "", 0x300_6000), host(2, FORK, 0x301_0000).suits(NO)];
    assert_eq!(decided(HELD, &hosts, true), "none 0:Superseded");
}
