//! Published ports, in their short and long forms.

use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum as Protocol, EndpointPortConfigPublishModeEnum as PublishMode,
};

use super::tree::{At, ComposeError, wrong};

/// Most ports that one range may stand for.
const RANGE_MAX: usize = 1_000;

/// Ports as one short form says them.
#[derive(Debug)]
pub struct Short {
    /// The ports, one for each of a range.
    pub ports: Vec<EndpointPortConfig>,
    /// The address to which they would be bound, if one is given.
    pub address: Option<String>,
}

/// Returns the ports of one item of a service's `ports`.
pub(super) fn read(at: &At<'_>, warnings: &mut Vec<String>) -> Result<Vec<EndpointPortConfig>, ComposeError> {
    if at.is_map() {
        return Ok(vec![long(at)?]);
    }
    let text = at.text()?;
    let Short { ports, address } = short(&text).map_err(|reason| wrong(at, reason))?;
    if let Some(address) = address {
        warnings.push(format!("the address {address} of the port {text} is ignored: it is published on every node"));
    }
    Ok(ports)
}

/// Reads `[[ADDRESS:]PUBLISHED[-LAST]:]TARGET[-LAST][/PROTOCOL]`.
///
/// # Errors
/// What is wrong with it.
pub fn short(text: &str) -> Result<Short, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = self::protocol(protocol)?;
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, target)) => (Some(published), target),
        None => (None, ports),
    };
    let (address, published) = match published.and_then(|published| published.rsplit_once(':')) {
        Some((address, published)) => (Some(address.to_owned()), Some(published)),
        None => (None, published),
    };
    let targets = range(target)?;
    let publisheds = published.filter(|published| !published.is_empty()).map(range).transpose()?;
    if publisheds.as_ref().is_some_and(|publisheds| publisheds.len() != targets.len()) {
        return Err("the ranges of published and target ports differ in length".to_owned());
    }
    let port = |(index, target): (usize, i64)| EndpointPortConfig {
        protocol: Some(protocol),
        target_port: Some(target),
        published_port: publisheds.as_ref().map(|publisheds| publisheds[index]),
        ..plain()
    };
    Ok(Short { ports: targets.iter().copied().enumerate().map(port).collect(), address })
}

/// Returns a port of TCP, published on every node, without its number.
pub fn plain() -> EndpointPortConfig {
    EndpointPortConfig {
        name: None,
        protocol: Some(Protocol::TCP),
        target_port: None,
        published_port: None,
        publish_mode: Some(PublishMode::INGRESS),
    }
}

fn long(at: &At<'_>) -> Result<EndpointPortConfig, ComposeError> {
    let mut port = plain();
    for (key, at) in at.entries()? {
        let text = || at.text();
        let wrong = |reason: String| wrong(&at, reason);
        match key {
            "target" => port.target_port = Some(number(&text()?).map_err(wrong)?),
            "published" => port.published_port = Some(number(&text()?).map_err(wrong)?),
            "protocol" => port.protocol = Some(protocol(&text()?).map_err(wrong)?),
            "mode" => port.publish_mode = Some(mode(&text()?).map_err(wrong)?),
            "name" => port.name = Some(text()?),
            // Tells other programs what is spoken there.
            "app_protocol" => {}
            _ => return Err(at.unknown()),
        }
    }
    if port.target_port.is_none() {
        return Err(wrong(at, "expected a key `target`"));
    }
    Ok(port)
}

/// Reads the name of a protocol.
///
/// # Errors
/// There is no such protocol.
pub fn protocol(word: &str) -> Result<Protocol, String> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        _ => Err(format!("the protocol {word:?} is not supported: tcp or udp")),
    }
}

/// Reads where a port is published.
///
/// # Errors
/// There is no such mode.
pub fn mode(word: &str) -> Result<PublishMode, String> {
    match word {
        "ingress" => Ok(PublishMode::INGRESS),
        "host" => Ok(PublishMode::HOST),
        _ => Err(format!("{word:?} is not supported: ingress or host")),
    }
}

/// Reads a port.
///
/// # Errors
/// It is no number of a port.
pub fn number(text: &str) -> Result<i64, String> {
    let port: Option<u16> = text.parse().ok().filter(|port| *port > 0);
    port.map(i64::from).ok_or_else(|| format!("{text:?} is not a port, expected 1 to 65535"))
}

fn range(text: &str) -> Result<Vec<i64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    let ports: Vec<i64> = (first..=last).take(RANGE_MAX + 1).collect();
    match ports.len() {
        0 => Err(format!("the range {text} is empty")),
        count if count > RANGE_MAX => Err(format!("the range {text} has more than {RANGE_MAX} ports")),
        _ => Ok(ports),
    }
}
