//! Endpoints: where to ask for an image, in which order, and whether without TLS.
//!
//! Input: a reference and the configuration. Output: URLs' beginnings. Docker's rules: mirrors are for Docker Hub's images
//! only, the registry itself comes last, and only loopback and named registries may be asked in plain text.

use std::net::Ipv4Addr;

use super::RegistryConfig;
use crate::image::reference::Reference;

/// How references say Docker Hub, and where that is.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// With TLS or without.
    pub(super) is_tls: bool,
    /// `host[:port]`.
    pub(super) host: String,
    /// Whether this is the registry that the name names, not a mirror of it.
    pub(super) is_origin: bool,
}

impl Endpoint {
    /// Returns where to ask for an image: mirrors first.
    pub(super) fn of(reference: &Reference, config: &RegistryConfig) -> Vec<Self> {
        let mirrors = config.mirrors.iter().filter(|_| reference.domain() == HUB);
        let mirrors = mirrors.flat_map(|mirror| Self::of_mirror(mirror, config));
        mirrors.chain(Self::of_registry(reference.domain(), config)).collect()
    }

    /// Returns where a registry itself is.
    pub(super) fn of_registry(registry: &str, config: &RegistryConfig) -> Vec<Self> {
        let host = if registry == HUB || registry == "index.docker.io" { HUB_HOST } else { registry };
        Self::both(host, config, true)
    }

    fn of_mirror(mirror: &str, config: &RegistryConfig) -> Vec<Self> {
        let mirror = mirror.trim_end_matches('/');
        match mirror.split_once("://") {
            Some((scheme, host)) => {
                vec![Self { is_tls: scheme != "http", host: host.to_owned(), is_origin: false }]
            }
            None => Self::both(mirror, config, false),
        }
    }

    fn both(host: &str, config: &RegistryConfig, is_origin: bool) -> Vec<Self> {
        let at = |is_tls| Self { is_tls, host: host.to_owned(), is_origin };
        let may_be_plain = is_loopback(host) || config.insecure.iter().any(|insecure| insecure == host);
        if may_be_plain { vec![at(true), at(false)] } else { vec![at(true)] }
    }

    /// Returns the beginning of all URLs.
    pub(super) fn base(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.host)
    }
}

/// Tells whether a registry is on this machine: `localhost`, `127.0.0.0/8` or `[::1]`, with or without a port.
fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix("[::1]") {
        return rest.is_empty() || rest.starts_with(':');
    }
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(image: &str, config: &RegistryConfig) -> Vec<String> {
        Endpoint::of(&image.parse().unwrap(), config).iter().map(Endpoint::base).collect()
    }

    #[test]
    fn only_loopback_and_named_registries_may_be_asked_in_plain_text() {
        let config = RegistryConfig { insecure: vec!["cache.lan:5000".to_owned()], ..RegistryConfig::default() };
        for host in ["localhost:5000", "127.0.0.1:5000", "127.9.8.7", "[::1]:5000", "cache.lan:5000"] {
            let both = [format!("https://{host}"), format!("http://{host}")];
            assert_eq!(bases(&format!("{host}/web"), &config), both);
        }
        for host in ["cache.lan:5001", "128.0.0.1:5000", "127.0.0.1.example.org", "localhost.example.org", "[::2]:1"] {
            assert_eq!(bases(&format!("{host}/web"), &config), [format!("https://{host}")]);
        }
    }

    #[test]
    fn mirrors_come_first_and_only_for_docker_hub() {
        let mirrors = vec!["http://mirror:5000/".to_owned(), "mirror.example.org".to_owned()];
        let config = RegistryConfig { mirrors, ..RegistryConfig::default() };
        let hub = "https://registry-1.docker.io";
        assert_eq!(bases("web", &config), ["http://mirror:5000", "https://mirror.example.org", hub]);
        assert_eq!(bases("example.org/web", &config), ["https://example.org"]);
        let origins: Vec<bool> = Endpoint::of(&"web".parse().unwrap(), &config).iter().map(|e| e.is_origin).collect();
        assert_eq!(origins, [false, false, true]);
    }
}
