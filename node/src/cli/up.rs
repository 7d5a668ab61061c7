//! `shoal up`: its flags.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use shoal_cluster::intent::name::Name;
use shoal_cluster::limits::LABEL_BYTES_MAX;
use shoal_runtime::image::registry::RegistryConfig;

/// How to run a node. The defaults suit one node per machine.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Join at this node (any node of the shoal; repeat to name several). Needed once: a node remembers its members.
    #[arg(long, env = "SHOAL_SEED", value_name = "HOST:PORT", value_delimiter = ',', value_parser = seed)]
    pub seed: Vec<String>,
    /// Join with this token, as `shoal join-token` prints it.
    #[arg(long, env = "SHOAL_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Call the node so when it is new [default: the host's name].
    #[arg(long, env = "SHOAL_NAME", value_name = "NODE_NAME", value_parser = Name::new)]
    pub name: Option<Name>,
    /// Give the node this engine label, for constraints such as engine.labels.disk==ssd (repeat for several).
    #[arg(long, env = "SHOAL_LABEL", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Keep the node's identity, its records and images here.
    #[arg(long, env = "SHOAL_DATA_DIR", value_name = "DIRECTORY", default_value = "/var/lib/shoal")]
    pub data_dir: PathBuf,
    /// Listen here: TCP for gossip and admission, UDP at the same port for the tunnel.
    #[arg(long, env = "SHOAL_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7946")]
    pub listen: SocketAddr,
    /// Tell others to reach this node here [default: the listen address, or the one that leads to the seed].
    #[arg(long, env = "SHOAL_ADVERTISE_ADDR", value_name = "ADDRESS")]
    pub advertise_addr: Option<IpAddr>,
    /// Answer DNS queries of this host here too (repeat for several); port 0 takes a free one.
    #[arg(
        long,
        env = "SHOAL_DNS_LISTEN",
        value_name = "ADDRESS:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7953"
    )]
    pub dns_listen: Vec<SocketAddr>,
    /// Forward other names to this DNS server (repeat for several) [default: those of /etc/resolv.conf].
    #[arg(long, env = "SHOAL_UPSTREAM", value_name = "ADDRESS:PORT", value_delimiter = ',')]
    pub upstream: Vec<SocketAddr>,
    /// Give the overlay's network interface this name.
    #[arg(long, env = "SHOAL_INTERFACE", value_name = "NAME", default_value = "shoal0", value_parser = interface)]
    pub interface: String,
    /// Make containers with this program, `runc` or one with its command line [default: shoal itself].
    #[arg(long, env = "SHOAL_RUNTIME", value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// Ask this mirror before Docker Hub for its images (repeat for several).
    #[arg(long, env = "SHOAL_REGISTRY_MIRROR", value_name = "URL", value_delimiter = ',')]
    pub registry_mirror: Vec<String>,
    /// Ask this registry without TLS if it has none (repeat for several); those on the loopback always are.
    #[arg(long, env = "SHOAL_INSECURE_REGISTRY", value_name = "HOST:PORT", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
    /// Use the registry logins in this file [default: ~/.docker/config.json].
    #[arg(long, env = "SHOAL_REGISTRY_LOGINS", value_name = "FILE")]
    pub registry_logins: Option<PathBuf>,
    /// Remove images that no service wants and other nodes keep when the disk is fuller than this.
    #[arg(long, env = "SHOAL_IMAGE_HIGH_WATER", value_name = "PERCENT", default_value_t = 85,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub image_high_water: u8,
    /// Write logs for people or as JSON, one object per line.
    #[arg(long, env = "SHOAL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// Log this much: a level (error, warn, info, debug, trace) or a list like `info,shoal=debug`.
    #[arg(long, env = "SHOAL_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Where the API's socket is: the value of the option that all commands have.
    #[arg(skip = super::SOCKET)]
    pub socket: PathBuf,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// As JSON, one object per line.
    Json,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match key.is_empty() || text.len() > LABEL_BYTES_MAX {
        true => Err(format!("expected KEY=VALUE of at most {LABEL_BYTES_MAX} bytes, such as disk=ssd")),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}

impl UpArgs {
    /// Returns how registries are reached.
    pub fn registries(&self) -> RegistryConfig {
        RegistryConfig {
            mirrors: self.registry_mirror.clone(),
            insecure: self.insecure_registry.clone(),
            logins: self.registry_logins.clone().or_else(super::login::file),
        }
    }
}

fn seed(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT, such as 192.0.2.1:7946".to_owned()),
    }
}

/// Checks a name against the kernel's rule for names of interfaces.
fn interface(text: &str) -> Result<String, String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%';
    match (1..=15).contains(&text.len()) && text != "." && text != ".." && text.bytes().all(valid) {
        true => Ok(text.to_owned()),
        false => Err("expected at most 15 printable characters without / : and %".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn up(line: &str) -> Result<UpArgs, String> {
        let cli =
            Cli::try_parse_from(format!("shoal up {line}").split_whitespace()).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Up(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_that_the_help_names() {
        let args = up("").unwrap();
        assert_eq!((args.listen.port(), args.interface.as_str()), (7946, "shoal0"));
        assert_eq!(args.dns_listen, ["127.0.0.1:7953".parse().unwrap()]);
        assert!(args.seed.is_empty() && args.upstream.is_empty() && args.name.is_none());
    }

    #[test]
    fn several_seeds_and_dns_addresses_may_be_given() {
        let args = up("--seed a:1 --seed [::1]:2,b:3 --dns-listen 127.0.0.1:0 --dns-listen [::1]:53").unwrap();
        assert_eq!(args.seed, ["a:1", "[::1]:2", "b:3"]);
        assert_eq!(args.dns_listen.len(), 2);
    }

    #[test]
    fn impossible_values_are_refused_where_they_are_given() {
        for line in [
            "--seed a",
            "--seed a:0",
            "--seed :1",
            "--name a.b",
            "--listen 1.2.3.4",
            "--interface abcdefghijklmnop",
            "--log-format xml",
        ] {
            assert!(up(line).is_err(), "{line}");
        }
    }
}
