//! Answers: what a question about a name of the shoal is answered with. Pure: a question and the table in, records out.
//!
//! A service is known by three names: `web.shoal.internal`, `tasks.web.shoal.internal` and the bare label `web`; to those on
//! a network with it also by its aliases there, in these three forms. All answer with the addresses of its running tasks. Other bare labels do not exist and are never asked of
//! the host's resolvers, which could only leak them (except for what a validating resolver asks of a top-level
//! domain, such as `DS` of `com`). Names outside the zone with two labels or more are [`Verdict::Foreign`]. Negative answers follow RFC 2308: they carry the SOA when the name is in the zone.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::plan::names::ZONE;

use crate::table::{Found, Table};

/// Seconds that a client may keep an answer, positive or negative. One second: a name must not outlive a dead task
/// by more than its detection, and asking again costs a tenth of a millisecond on the same machine.
pub(crate) const TTL_SECONDS: u32 = 1;
/// Addresses in one answer at most, so that the longest answer fits a TCP message (65,535 bytes) in both families.
/// A larger service shows another window of them each time, as its addresses rotate.
pub(crate) const ANSWER_ADDRESSES_MAX: usize = 1_000;
/// Seconds that a secondary would wait between refreshes, retries and until expiry; there are no secondaries.
const SOA_TIMES_SECONDS: [i32; 3] = [60, 10, 3600];

/// What is to be done with a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is ours: this is the answer.
    Ours(Answer),
    /// It is about a name outside the shoal: the host's resolvers may know.
    Foreign,
}

/// An answer with authority.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    /// The response code.
    pub(crate) code: ResponseCode,
    /// The records of the answer section.
    pub(crate) records: Vec<Record>,
    /// The SOA of the authority section, in negative answers about the zone; else nothing.
    pub(crate) authority: Vec<Record>,
}

/// Whom a name means.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    /// The zone itself.
    Apex,
    /// Possibly a service, by this name in lower case; `in_zone` unless it is a bare label. If there is no such
    /// service the answer is `absent`: some names exist all the same, because names exist under them.
    Service { name: String, in_zone: bool, absent: ResponseCode },
    /// A name that cannot exist.
    Absent,
    /// A name outside the shoal.
    Foreign,
}

/// Answers questions about one zone.
#[derive(Debug)]
pub(crate) struct Zone {
    apex: Name,
}

impl Default for Zone {
    fn default() -> Self {
        Self { apex: Name::from_ascii(format!("{ZONE}.")).expect("the zone is a constant and a valid name") }
    }
}

impl Zone {
    /// Returns what to do with a question of `client` for records of type `kind` and class `class` of `name`.
    pub(crate) fn answer(
        &self,
        table: &Table,
        client: IpAddr,
        (name, kind, class): (&Name, RecordType, DNSClass),
    ) -> Verdict {
        if class != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Verdict::Ours(Answer::error(ResponseCode::Refused));
        }
        let serial = table.serial();
        Verdict::Ours(match self.subject(name) {
            Subject::Foreign => return Verdict::Foreign,
            Subject::Absent => self.negative(ResponseCode::NXDomain, serial, true),
            Subject::Apex => self.apex_answer(kind, serial),
            Subject::Service { name: service, in_zone, absent } => match table.find(client, &service) {
                None if !in_zone && of_top_level_domains(kind) => return Verdict::Foreign,
                None => self.negative(absent, serial, in_zone),
                Some(service) => {
                    let records = address_records(&service, name, kind);
                    match records.is_empty() {
                        true => self.negative(ResponseCode::NoError, serial, in_zone),
                        false => Answer { code: ResponseCode::NoError, records, authority: Vec::new() },
                    }
                }
            },
        })
    }

    /// Returns whom `name` means.
    fn subject(&self, name: &Name) -> Subject {
        let Some(first) = label(name, 0) else {
            return if name.is_root() { Subject::Foreign } else { Subject::Absent };
        };
        let service = |name: String, in_zone, hollow| {
            let absent = if hollow { ResponseCode::NoError } else { ResponseCode::NXDomain };
            Subject::Service { name, in_zone, absent }
        };
        if !self.apex.zone_of(name) {
            let hollow = name.zone_of(&self.apex);
            return if name.num_labels() == 1 { service(first, false, hollow) } else { Subject::Foreign };
        }
        match (name.num_labels() - self.apex.num_labels(), first.as_str()) {
            (0, _) => Subject::Apex,
            (1, "tasks" | "ns") => service(first, true, true),
            (1, _) => service(first, true, false),
            (2, "tasks") => label(name, 1).map_or(Subject::Absent, |name| service(name, true, false)),
            _ => Subject::Absent,
        }
    }

    fn apex_answer(&self, kind: RecordType, serial: u32) -> Answer {
        let record = match kind {
            RecordType::SOA | RecordType::ANY => self.soa(serial),
            RecordType::NS => Record::from_rdata(self.apex.clone(), TTL_SECONDS, RData::NS(NS(self.server()))),
            _ => return self.negative(ResponseCode::NoError, serial, true),
        };
        Answer { code: ResponseCode::NoError, records: vec![record], authority: Vec::new() }
    }

    /// Returns an answer that says there is nothing, with the SOA if the name is in the zone.
    fn negative(&self, code: ResponseCode, serial: u32, in_zone: bool) -> Answer {
        Answer { code, records: Vec::new(), authority: in_zone.then(|| self.soa(serial)).into_iter().collect() }
    }

    fn soa(&self, serial: u32) -> Record {
        let [refresh, retry, expire] = SOA_TIMES_SECONDS;
        let contact = self.apex.prepend_label("hostmaster").unwrap_or_else(|_| self.apex.clone());
        let data = SOA::new(self.server(), contact, serial, refresh, retry, expire, TTL_SECONDS);
        Record::from_rdata(self.apex.clone(), TTL_SECONDS, RData::SOA(data))
    }

    /// Returns the name under which the zone names its server: every node is one.
    fn server(&self) -> Name {
        self.apex.prepend_label("ns").unwrap_or_else(|_| self.apex.clone())
    }
}

impl Answer {
    /// Returns an answer that says only `code`.
    pub(crate) fn error(code: ResponseCode) -> Self {
        Self { code, records: Vec::new(), authority: Vec::new() }
    }
}

/// Returns the address records of `kind` of a service, owned by the name that was asked for.
fn address_records(service: &Found, name: &Name, kind: RecordType) -> Vec<Record> {
    let (v4, v6) = match kind {
        RecordType::A => (true, false),
        RecordType::AAAA => (false, true),
        RecordType::ANY => (true, true),
        _ => return Vec::new(),
    };
    let data = |addresses: &Addresses| {
        let a = addresses.v4.filter(|_| v4).map(|address| RData::A(A(address)));
        let aaaa = v6.then_some(RData::AAAA(AAAA(addresses.v6)));
        [a, aaaa]
            .into_iter()
            .flatten()
            .map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data))
            .collect::<Vec<_>>()
    };
    service.rotated().take(ANSWER_ADDRESSES_MAX).flat_map(data).collect()
}

/// Tells whether records of this kind are asked of top-level domains by resolvers that walk or validate the tree.
fn of_top_level_domains(kind: RecordType) -> bool {
    matches!(kind, RecordType::NS | RecordType::SOA | RecordType::DS | RecordType::DNSKEY)
}

/// Returns the label of `name` at `index` in lower case, if it is text.
fn label(name: &Name, index: usize) -> Option<String> {
    name.iter().nth(index).and_then(|label| std::str::from_utf8(label).ok()).map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hickory_proto::op::ResponseCode::{NXDomain, NoError, Refused};
    use proptest::prelude::*;
    use shoal_cluster::plan::names::Names;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn task(host: u8) -> Addresses {
        Addresses { v4: Some(Ipv4Addr::new(10, 64, 3, host)), v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()) }
    }

    fn table() -> Table {
        let table = Table::default();
        let only_v6 = Addresses { v4: None, ..task(9) };
        let services = [("web", vec![task(2), task(3)]), ("idle", vec![]), ("new", vec![only_v6])];
        table.replace(&Names {
            services: services.map(|(name, list)| (name.to_string(), list)).into(),
            ..Names::default()
        });
        table
    }

    fn ask(name: &str, kind: RecordType) -> Answer {
        match Zone::default().answer(&table(), HOST, (&Name::from_ascii(name).expect("name"), kind, DNSClass::IN)) {
            Verdict::Ours(answer) => answer,
            Verdict::Foreign => panic!("{name} taken for foreign"),
        }
    }

    /// What an answer says: its code, its addresses in order, and whether the SOA came along.
    fn says(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, bool) {
        let answer = ask(name, kind);
        let soa = answer.authority.first().is_some_and(|record| record.record_type() == RecordType::SOA);
        (answer.code, answer.records.iter().map(|record| record.data.to_string()).collect(), soa)
    }

    #[test]
    fn all_three_names_of_a_service_answer_with_its_running_tasks() {
        for name in ["web.shoal.internal.", "tasks.web.shoal.internal.", "web.", "WeB.sHoAl.InTeRnAl."] {
            let v4 = vec!["10.64.3.2".to_string(), "10.64.3.3".to_string()];
            assert_eq!(says(name, RecordType::A), (NoError, v4, false), "{name}");
            assert_eq!(
                says(name, RecordType::AAAA),
                (NoError, vec!["fd00::2".into(), "fd00::3".into()], false),
                "{name}"
            );
            assert_eq!(says(name, RecordType::ANY).1.len(), 4, "{name}");
        }
    }

    #[test]
    fn the_owner_of_the_records_is_spelled_as_it_was_asked() {
        assert_eq!(ask("WeB.shoal.internal.", RecordType::A).records[0].name.to_string(), "WeB.shoal.internal.");
    }

    #[test]
    fn a_service_with_none_running_exists_but_has_no_data() {
        assert_eq!(says("idle.shoal.internal.", RecordType::A), (NoError, vec![], true));
        assert_eq!(says("idle.", RecordType::A), (NoError, vec![], false));
    }

    #[test]
    fn a_task_without_an_ipv4_address_yet_answers_only_ipv6() {
        assert_eq!(says("new.shoal.internal.", RecordType::A), (NoError, vec![], true));
        assert_eq!(says("new.shoal.internal.", RecordType::AAAA), (NoError, vec!["fd00::9".into()], false));
    }

    #[test]
    fn unknown_names_of_the_zone_do_not_exist() {
        for name in [
            "nope.shoal.internal.",
            "tasks.nope.shoal.internal.",
            "a.web.shoal.internal.",
            "a.tasks.web.shoal.internal.",
        ] {
            assert_eq!(says(name, RecordType::A), (NXDomain, vec![], true), "{name}");
        }
        assert_eq!(says("nope.", RecordType::A), (NXDomain, vec![], false));
    }

    #[test]
    fn another_type_of_an_existing_name_is_no_data() {
        for name in ["web.shoal.internal.", "tasks.shoal.internal.", "ns.shoal.internal.", "shoal.internal."] {
            assert_eq!(says(name, RecordType::TXT), (NoError, vec![], true), "{name}");
        }
    }

    #[test]
    fn a_service_may_be_called_like_a_name_of_the_zone() {
        let table = Table::default();
        table.replace(&Names { services: [("tasks".to_string(), vec![task(4)])].into(), ..Names::default() });
        for name in ["tasks.shoal.internal.", "tasks.tasks.shoal.internal.", "tasks."] {
            let name = Name::from_ascii(name).expect("name");
            let Verdict::Ours(answer) = Zone::default().answer(&table, HOST, (&name, RecordType::A, DNSClass::IN))
            else {
                panic!("foreign")
            };
            assert_eq!(answer.records.len(), 1, "{name}");
        }
    }

    #[test]
    fn a_validating_resolver_may_ask_for_the_keys_of_a_top_level_domain() {
        let ask = |name: &str, kind| {
            Zone::default().answer(&table(), HOST, (&Name::from_ascii(name).expect("name"), kind, DNSClass::IN))
        };
        assert_eq!(ask("com.", RecordType::DS), Verdict::Foreign);
        assert_ne!(ask("com.", RecordType::A), Verdict::Foreign);
        assert_eq!(says("internal.", RecordType::A).0, NoError, "the zone lies under it");
    }

    #[test]
    fn the_apex_has_soa_and_ns() {
        assert_eq!(ask("shoal.internal.", RecordType::SOA).records[0].record_type(), RecordType::SOA);
        assert_eq!(says("shoal.internal.", RecordType::NS).1, ["ns.shoal.internal."]);
    }

    #[test]
    fn other_classes_and_zone_transfers_are_refused() {
        let name = Name::from_ascii("web.shoal.internal.").expect("name");
        let chaos = Zone::default().answer(&table(), HOST, (&name, RecordType::TXT, DNSClass::CH));
        assert_eq!(chaos, Verdict::Ours(Answer::error(ResponseCode::Refused)));
        assert_eq!(ask("shoal.internal.", RecordType::AXFR).code, Refused);
    }

    #[test]
    fn names_outside_the_shoal_are_foreign() {
        for name in ["example.com.", ".", "xshoal.internal.", "web.shoal.internal.com.", "internal.example."] {
            let name = Name::from_ascii(name).expect("name");
            assert_eq!(
                Zone::default().answer(&table(), HOST, (&name, RecordType::A, DNSClass::IN)),
                Verdict::Foreign,
                "{name}"
            );
        }
    }

    #[test]
    fn a_huge_service_shows_a_window_that_moves() {
        let table = Table::default();
        let address = |host: u16| Addresses { v4: None, v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host) };
        let all = (0..2 * ANSWER_ADDRESSES_MAX as u16).map(address).collect();
        table.replace(&Names { services: [("web".to_string(), all)].into(), ..Names::default() });
        let first = |_| match Zone::default().answer(
            &table,
            HOST,
            (&Name::from_ascii("web.").expect("name"), RecordType::AAAA, DNSClass::IN),
        ) {
            Verdict::Ours(answer) => (answer.records.len(), answer.records[0].data.clone()),
            Verdict::Foreign => panic!("foreign"),
        };
        let [one, two] = [0, 1].map(first);
        assert_eq!((one.0, two.0), (ANSWER_ADDRESSES_MAX, ANSWER_ADDRESSES_MAX));
        assert_ne!(one.1, two.1);
    }

    proptest! {
        /// The oracle speaks in text: split at dots, look at the tail.
        #[test]
        fn whatever_is_asked_the_code_is_that_of_the_plain_rule(
            labels in proptest::collection::vec("web|idle|new|tasks|ns|nope|shoal|internal|com|[a-z]{1,5}", 0..5),
            in_zone in any::<bool>(),
        ) {
            let mut labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            if in_zone {
                labels.extend(["shoal", "internal"]);
            }
            let name = Name::from_ascii(format!("{}.", labels.join("."))).expect("name");
            let known = |name: &str| ["web", "idle", "new"].contains(&name);
            let expected = match labels.as_slice() {
                ["shoal", "internal"] => Some(NoError),
                ["tasks" | "ns", "shoal", "internal"] => Some(NoError),
                ["internal"] => Some(NoError),
                [service, "shoal", "internal"] | ["tasks", service, "shoal", "internal"] | [service] => {
                    Some(if known(service) { NoError } else { NXDomain })
                }
                [.., "shoal", "internal"] => Some(NXDomain),
                _ => None,
            };
            let found = match Zone::default().answer(&table(), HOST, (&name, RecordType::A, DNSClass::IN)) {
                Verdict::Ours(answer) => Some(answer.code),
                Verdict::Foreign => None,
            };
            prop_assert_eq!(found, expected);
        }
    }
}
