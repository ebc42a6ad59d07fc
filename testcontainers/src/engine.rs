//! What differs between engines: where published ports are, and how they are asked for.

use std::env;

use testcontainers::core::IntoContainerPort;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};

/// Bollard's type, which testcontainers does not export by a shorter name.
type PortBinding = testcontainers::bollard::models::PortBinding;

const LOOPBACK: &str = "127.0.0.1";

/// Name and tag of an image: from the environment, or the default.
pub(crate) fn image(variable: &str, default: &str) -> (String, String) {
    let name = env::var(variable).unwrap_or_else(|_| default.to_owned());
    match name.rsplit_once(':') {
        // A colon before a slash belongs to a port.
        Some((image, tag)) if !tag.contains('/') => (image.to_owned(), tag.to_owned()),
        _ => (name, "latest".to_owned()),
    }
}

/// The host at which the engine publishes ports. A container in which the test itself runs may
/// have its own loopback: there `TESTCONTAINERS_HOST_OVERRIDE` names the host. testcontainers' own
/// `get_host` takes any `/.dockerenv` for that case, and gives a bridge that need not be reachable.
pub(crate) fn host() -> String {
    if let Ok(host) = env::var("TESTCONTAINERS_HOST_OVERRIDE") {
        return host;
    }
    let engine = env::var("DOCKER_HOST").unwrap_or_default();
    let tcp = engine.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':'));
    tcp.map_or(LOOPBACK, |(host, _)| host).to_owned()
}

/// Publishes `port` at a free port. On this machine it is bound to the loopback by name: podman
/// otherwise reports the binding without an address, and testcontainers then finds no port.
pub(crate) fn publish(
    request: ContainerRequest<GenericImage>,
    port: u16,
    host: &str,
) -> ContainerRequest<GenericImage> {
    if host != LOOPBACK {
        return request;
    }
    let port = port.tcp().to_string();
    request.with_host_config_modifier(move |config| {
        let binding =
            PortBinding { host_ip: Some(LOOPBACK.to_owned()), host_port: Some(String::new()) };
        config.publish_all_ports = Some(false);
        config.port_bindings = Some([(port.clone(), Some(vec![binding]))].into());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_may_have_a_registry_with_a_port_and_no_tag() {
        let split = |name: &str| image("NOT_SET_ANYWHERE", name);
        assert_eq!(split("postgres:17"), ("postgres".to_owned(), "17".to_owned()));
        assert_eq!(split("host:5000/frazil"), ("host:5000/frazil".to_owned(), "latest".to_owned()));
        assert_eq!(split("frazil"), ("frazil".to_owned(), "latest".to_owned()));
    }
}
