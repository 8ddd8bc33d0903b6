//! From a name to the addresses that are dialled: asked once, each one checked.

use std::{
    error, io, iter,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    proto::rr::{RData, RecordType},
};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolving};
use tokio::sync::OnceCell;

use super::guard;

/// The port of HTTPS.
const HTTPS: u16 = 443;
/// How long one question to a name server waits for its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a question is asked again: all of it takes less than a call may, so that the log names the cause.
const REPEATS: usize = 1;
/// How many answers of name servers are remembered: strangers choose the names.
const REMEMBERED: u64 = 1024;

/// Finds the addresses of a name.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// A record of type SRV (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Those with the lowest one are dialled first.
    pub priority: u16,
    /// How large its share is among those of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host, without a dot at its end.
    pub target: String,
}

/// Finds the SRV records of a name such as `_matrix-fed._tcp.example.org`.
pub type ResolveServices =
    Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<Service>>> + Send + Sync>;

/// How names are looked up.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) addresses: Resolve,
    pub(super) services: ResolveServices,
    /// The port that is dialled where a URL has that of HTTPS.
    pub(super) https_port: u16,
}

/// The system's file of hosts, then its name servers. Both are read at the first use.
pub(super) fn system() -> Names {
    let resolver: Arc<OnceCell<TokioResolver>> = Arc::default();
    let same = Arc::clone(&resolver);
    Names {
        addresses: Arc::new(move |name| Box::pin(addresses(Arc::clone(&resolver), name))),
        services: Arc::new(move |name| Box::pin(services(Arc::clone(&same), name))),
        https_port: HTTPS,
    }
}

async fn addresses(
    resolver: Arc<OnceCell<TokioResolver>>,
    name: String,
) -> io::Result<Vec<IpAddr>> {
    let resolver = resolver.get_or_try_init(|| async { build() }).await?;
    // The dot at the end: a name is the same for everybody, whatever domains this machine would search.
    let found = resolver.lookup_ip(format!("{name}.")).await;
    match found {
        Ok(found) => Ok(found.iter().collect()),
        Err(why) if why.is_no_records_found() => Ok(Vec::new()),
        Err(why) => Err(io::Error::other(why)),
    }
}

async fn services(
    resolver: Arc<OnceCell<TokioResolver>>,
    name: String,
) -> io::Result<Vec<Service>> {
    let resolver = resolver.get_or_try_init(|| async { build() }).await?;
    let found = match resolver.lookup(format!("{name}."), RecordType::SRV).await {
        Ok(found) => found,
        Err(why) if why.is_no_records_found() => return Ok(Vec::new()),
        Err(why) => return Err(io::Error::other(why)),
    };
    let services = found.answers().iter().filter_map(|record| {
        let RData::SRV(record) = &record.data else {
            return None;
        };
        Some(Service {
            priority: record.priority,
            weight: record.weight,
            port: record.port,
            target: record.target.to_ascii().trim_end_matches('.').to_owned(),
        })
    });
    Ok(services.collect())
}

fn build() -> io::Result<TokioResolver> {
    let mut builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
    let options = builder.options_mut();
    options.cache_size = REMEMBERED;
    options.timeout = PATIENCE;
    options.attempts = REPEATS;
    builder.build().map_err(io::Error::other)
}

/// What the HTTP client asks for addresses. What it gets is what it dials: there is no second look-up.
pub(super) struct Guarded {
    pub(super) names: Names,
    pub(super) allow: Arc<[IpNet]>,
    /// The host whose addresses are given in the place of those of any other.
    pub(super) instead: Option<String>,
}

impl reqwest::dns::Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let name = self.instead.as_deref().unwrap_or(name.as_str()).to_owned();
        let found = (self.names.addresses)(name.clone());
        let allow = Arc::clone(&self.allow);
        // Port 0, and any port where the URL has one: the client puts that of the URL in its place.
        let port = Some(self.names.https_port).filter(|port| *port != HTTPS);
        let port = port.unwrap_or(0);
        Box::pin(async move {
            let checked = check_all(&name, found.await, &allow)?;
            let addresses = checked.into_iter().map(move |ip| SocketAddr::new(ip, port));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// All the addresses of `name`, or why none of them may be dialled. One that is forbidden taints the others: they come
/// from whoever owns the name.
fn check_all(
    name: &str,
    found: io::Result<Vec<IpAddr>>,
    allow: &[IpNet],
) -> Result<Vec<IpAddr>, Refused> {
    let found = found.map_err(|why| Refused(format!("{name} can not be resolved: {why}")))?;
    if found.is_empty() {
        return Err(Refused(format!("{name} has no address")));
    }
    for address in &found {
        guard::check(*address, allow)
            .map_err(|why| Refused(format!("{name} resolves to {why}")))?;
    }
    Ok(found)
}

/// Why a name is not dialled.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// The sentence about a name that was not dialled, if that is what `why` comes from.
pub(super) fn refusal(why: &(dyn error::Error + 'static)) -> Option<String> {
    iter::successors(Some(why), |why| why.source())
        .find_map(|why| why.downcast_ref::<Refused>())
        .map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Mutex};

    use hickory_resolver::{
        config::{NameServerConfig, ResolverConfig},
        net::runtime::TokioRuntimeProvider,
        proto::{
            op::{Message, OpCode, ResponseCode},
            rr::{Record, rdata::SRV},
        },
    };
    use tokio::net::UdpSocket;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    fn check(addresses: &[&str]) -> Result<Vec<IpAddr>, String> {
        let found = addresses.iter().map(|text| text.parse().unwrap()).collect();
        check_all("id.example.org", Ok(found), &[]).map_err(|why| why.to_string())
    }

    #[test]
    fn one_forbidden_address_taints_all() {
        let forbidden = "id.example.org resolves to 10.0.0.5, which is not a public address; \
                         to allow it, add its network to outbound.allow";
        assert_eq!(check(&["1.1.1.1", "2606:4700::1"]).unwrap().len(), 2);
        for mixed in [
            &["10.0.0.5"][..],
            &["1.1.1.1", "10.0.0.5"],
            &["10.0.0.5", "1.1.1.1"],
            &["2606:4700::1", "::ffff:10.0.0.5"],
        ] {
            assert_eq!(check(mixed), Err(forbidden.to_owned()), "{mixed:?}");
        }
        assert_eq!(check(&[]), Err("id.example.org has no address".to_owned()));
    }

    /// A name server on loopback that answers everything with `answers`, or with `code`.
    async fn name_server(code: ResponseCode, answers: Vec<SRV>) -> NameServer {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
        server.connections[0].port = socket.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut packet).await.unwrap();
                let question = Message::from_vec(&packet[..length]).unwrap();
                let query = question.queries[0].clone();
                let (name, kind) = (query.name().clone(), query.query_type());
                noted.lock().unwrap().push(format!("{name} {kind}"));
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                answer.metadata.response_code = code;
                answer.add_query(query);
                let record =
                    |srv: &SRV| Record::from_rdata(name.clone(), 60, RData::SRV(srv.clone()));
                answer.add_answers(answers.iter().map(record));
                socket
                    .send_to(&answer.to_vec().unwrap(), from)
                    .await
                    .unwrap();
            }
        });
        // A machine that searches a domain: what is asked with a dot at its end is not looked for there.
        let search = vec!["search.example.".parse().unwrap()];
        let config = ResolverConfig::from_parts(None, search, vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().attempts = 1;
        let resolver = OnceCell::new_with(Some(builder.build().unwrap()));
        NameServer {
            resolver: Arc::new(resolver),
            asked,
            _task: AbortOnDropHandle::new(task),
        }
    }

    struct NameServer {
        resolver: Arc<OnceCell<TokioResolver>>,
        /// Names and types, as they were asked for.
        asked: Arc<Mutex<Vec<String>>>,
        _task: AbortOnDropHandle<()>,
    }

    impl NameServer {
        async fn services(&self) -> io::Result<Vec<Service>> {
            services(Arc::clone(&self.resolver), NAME.to_owned()).await
        }
    }

    const NAME: &str = "_matrix-fed._tcp.example.org";

    #[tokio::test]
    async fn services_are_read_as_the_name_server_sends_them() {
        let srv = |priority, weight, port, target: &str| {
            SRV::new(priority, weight, port, target.parse().unwrap())
        };
        let answers = vec![
            srv(10, 5, 8448, "matrix.example.org."),
            srv(20, 0, 443, "backup.example.net."),
        ];
        let server = name_server(ResponseCode::NoError, answers).await;

        let found = server.services().await.unwrap();

        let service = |priority, weight, port, target: &str| Service {
            priority,
            weight,
            port,
            target: target.to_owned(),
        };
        let wanted = [
            service(10, 5, 8448, "matrix.example.org"),
            service(20, 0, 443, "backup.example.net"),
        ];
        assert_eq!(found, wanted);
        let asked = server.asked.lock().unwrap().clone();
        assert_eq!(asked, [format!("{NAME}. SRV")]);
    }

    #[tokio::test]
    async fn a_name_without_services_has_none_and_is_not_searched_for_elsewhere() {
        for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
            let server = name_server(code, Vec::new()).await;

            assert_eq!(server.services().await.unwrap(), [], "{code}");

            let asked = server.asked.lock().unwrap().clone();
            assert!(
                asked.iter().all(|one| *one == format!("{NAME}. SRV")),
                "{asked:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_server_that_fails_is_an_error() {
        for code in [ResponseCode::ServFail, ResponseCode::Refused] {
            let server = name_server(code, Vec::new()).await;

            assert!(server.services().await.is_err(), "{code}");
        }
    }

    #[tokio::test]
    async fn the_name_of_this_machine_needs_no_name_server() {
        let found = (system().addresses)("localhost".to_owned()).await.unwrap();

        assert!(!found.is_empty());
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
