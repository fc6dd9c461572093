//! How this machine resolves a name: `/etc/hosts`, then the name servers of `/etc/resolv.conf` with its search domains
//! and `ndots`, then the C library for what only its other sources know (mDNS, LDAP, the machine's own name).
//!
//! Guarantees: the files are read for every lookup, so a change takes effect with the next one; as with the C library,
//! a name in `/etc/hosts` has those addresses and no others, and name servers are queried in order.

use std::net::IpAddr;

use hickory_resolver::{
    Resolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::Name,
    system_conf::read_system_conf,
};

use super::{Found, LookUp, LookingUp, LookupError, UNLIMITED};

/// This machine's resolver.
#[derive(Debug, Default)]
pub struct System;

impl LookUp for System {
    fn look_up<'a>(&'a self, host: &'a str) -> LookingUp<'a> {
        Box::pin(look_up(host))
    }
}

async fn look_up(host: &str) -> Result<Found, LookupError> {
    let hosts = std::fs::read("/etc/hosts").unwrap_or_default();
    if let Some(found) = in_hosts(&String::from_utf8_lossy(&hosts), host) {
        return Ok(found);
    }
    let asked = match read_system_conf() {
        Ok((config, options)) => ask(host, config, options).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(found) if !found.addresses.is_empty() => Ok(found),
        // A name server that does not respond would not respond to the C library either.
        Err(error @ (NetError::Timeout | NetError::NoConnections)) => {
            Err(LookupError::new(format_args!("name servers: {error}")))
        }
        _ => ask_c_library(host).await,
    }
}

/// hosts(5): an address and its names per line. The library's own reader answers per family: a name with only an IPv4
/// address would be looked up elsewhere for IPv6.
fn in_hosts(text: &str, host: &str) -> Option<Found> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    let found = Found {
        addresses: addresses.collect(),
        good_for: UNLIMITED,
    };
    (!found.addresses.is_empty()).then_some(found)
}

async fn ask(host: &str, config: ResolverConfig, mut options: ResolverOpts) -> Result<Found, NetError> {
    // The C library uses the domain of the machine's name only if no search list is set.
    let domain = config.domain().filter(|_| config.search().is_empty()).cloned();
    let config = ResolverConfig::from_parts(domain, config.search().to_vec(), config.name_servers().to_vec());
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.num_concurrent_reqs = 1;
    // The resolver above keeps answers itself.
    options.cache_size = 0;
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    // Addresses are checked to be ASCII; the other constructor refuses underscores within a name.
    let looked = builder.build()?.lookup_ip(Name::from_ascii(host)?).await?;
    let shortest = looked.as_lookup().answers().iter().map(|record| record.ttl).min();
    Ok(Found {
        addresses: looked.iter().collect(),
        good_for: std::time::Duration::from_secs(shortest.unwrap_or_default().into()),
    })
}

async fn ask_c_library(host: &str) -> Result<Found, LookupError> {
    let addresses = tokio::net::lookup_host((host, 0)).await.map_err(LookupError::new)?;
    Ok(Found {
        addresses: addresses.map(|address| address.ip()).collect(),
        good_for: UNLIMITED,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
        time::Duration,
    };

    use hickory_resolver::{
        config::{ConnectionConfig, NameServerConfig},
        proto::{
            op::{Message, ResponseCode},
            rr::{RData, Record, RecordType},
        },
    };
    use parking_lot::Mutex;

    use super::*;

    type Asked = Arc<Mutex<Vec<String>>>;

    /// Answers with the addresses of known names, with the last number as their time to live; other names do not exist.
    async fn name_server(records: &[(&'static str, &'static str)]) -> (NameServerConfig, Asked) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut known: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (name, ip) in records {
            known.entry((*name).to_owned()).or_default().push(ip.parse().unwrap());
        }
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let question = query.queries[0].clone();
                let name = question.name().to_ascii();
                let mut answer = Message::response(query.id, query.op_code);
                match known.get(&name) {
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                    Some(ips) => {
                        let is_asked = |ip: &&IpAddr| ip.is_ipv6() == (question.query_type() == RecordType::AAAA);
                        answer.add_answers(ips.iter().filter(is_asked).map(|&ip| {
                            let ttl = if ip.is_ipv6() { 20 } else { 9 };
                            Record::from_rdata(question.name().clone(), ttl, RData::from(ip))
                        }));
                    }
                }
                seen.lock().push(name);
                answer.add_query(question);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let mut over_udp = ConnectionConfig::udp();
        over_udp.port = address.port();
        (NameServerConfig::new(address.ip(), true, vec![over_udp]), asked)
    }

    fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn all_addresses_of_both_families_with_the_shortest_time_to_live() {
        let (server, _) = name_server(&[
            ("a.test.", "10.0.0.1"),
            ("a.test.", "10.0.0.2"),
            ("a.test.", "fd00::1"),
            ("six.test.", "fd00::6"),
        ])
        .await;
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let found = ask("a.test", config.clone(), ResolverOpts::default()).await.unwrap();
        assert_eq!(found.addresses, ips(&["10.0.0.1", "10.0.0.2", "fd00::1"]));
        assert_eq!(found.good_for, Duration::from_secs(9));
        let found = ask("six.test", config.clone(), ResolverOpts::default()).await.unwrap();
        assert_eq!(
            (found.addresses, found.good_for),
            (ips(&["fd00::6"]), Duration::from_secs(20))
        );
        let error = ask("none.test", config, ResolverOpts::default()).await.unwrap_err();
        assert!(error.is_nx_domain(), "{error}");
    }

    #[tokio::test]
    async fn search_domains_and_ndots_are_those_of_the_machine() {
        let records = [
            ("db.shop.test.", "10.0.0.1"),
            ("db.host.test.", "10.0.0.2"),
            ("a.b.", "10.0.0.3"),
            ("a.b.shop.test.", "10.0.0.4"),
            ("my_db.shop.test.", "10.0.0.5"),
        ];
        let (server, asked) = name_server(&records).await;
        let name = |text: &str| Name::from_utf8(text).unwrap();
        // What is read on a machine `x.host.test` with `search none.test shop.test`.
        let config = ResolverConfig::from_parts(
            Some(name("host.test.")),
            vec![name("none.test."), name("shop.test.")],
            vec![server.clone()],
        );
        for (host, ndots, expected) in [
            ("db", 1, "10.0.0.1"),
            ("a.b", 1, "10.0.0.3"),
            // Kubernetes uses 5.
            ("a.b", 5, "10.0.0.4"),
            ("a.b.", 5, "10.0.0.3"),
            ("my_db", 5, "10.0.0.5"),
        ] {
            let mut options = ResolverOpts::default();
            options.ndots = ndots;
            let found = ask(host, config.clone(), options).await;
            assert_eq!(found.unwrap().addresses, ips(&[expected]), "{host} {ndots}");
        }
        let asked_host = asked.lock().iter().any(|name| name.ends_with(".host.test."));
        assert!(
            !asked_host,
            "the machine's own domain is for machines without a search list"
        );
        let config = ResolverConfig::from_parts(Some(name("host.test.")), Vec::new(), vec![server]);
        let found = ask("db", config, ResolverOpts::default()).await.unwrap();
        assert_eq!(found.addresses, ips(&["10.0.0.2"]));
    }

    #[test]
    fn a_name_in_the_hosts_file_has_the_addresses_there_and_no_others() {
        let hosts = "127.0.0.1 localhost loop\n::1 localhost\n10.0.0.1 db.test Backend # x\n10.0.0.2 my_db db.test\n# 10.0.0.3 db.test\nx db.test\n";
        let of = |name| in_hosts(hosts, name).map(|found| (found.addresses, found.good_for));
        assert_eq!(of("localhost"), Some((ips(&["127.0.0.1", "::1"]), UNLIMITED)));
        assert_eq!(of("DB.test"), Some((ips(&["10.0.0.1", "10.0.0.2"]), UNLIMITED)));
        assert_eq!(of("backend"), Some((ips(&["10.0.0.1"]), UNLIMITED)));
        assert_eq!(of("my_db"), Some((ips(&["10.0.0.2"]), UNLIMITED)));
        assert_eq!(of("test"), None);
        assert_eq!(of("x"), None);
    }

    #[tokio::test]
    async fn localhost_is_known_without_a_name_server() {
        let found = System.look_up("localhost").await.unwrap();
        assert!(found.addresses.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
