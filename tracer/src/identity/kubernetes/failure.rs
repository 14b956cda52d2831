//! What went wrong with the API → cause and remedy in words, and how to go on.
//!
//! Texts of servers and libraries are untrusted: bounded and escaped. What may hold a credential (a
//! kubeconfig that does not parse, the output of a credential plugin) is never repeated.

use std::{error::Error as StdError, io};

use kube::{
    client::AuthError,
    config::{InferConfigError, KubeconfigError},
    core::Status,
    runtime::watcher,
};

use super::connection::Refused;
use crate::host::escape;

/// Of what a server says of itself.
const MOST_MESSAGE_CHARS: usize = 200;
/// Errors within errors; a chain has a handful.
const MOST_CAUSES: usize = 16;

/// How to go on, after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Where it was.
    Resume,
    /// All pods anew.
    Relist,
    /// With credentials and certificates read anew, too.
    Reconnect,
}

/// A failure of the watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub text: String,
    /// Whether it is nothing to speak of as long as the next try succeeds: the server restarts, or has
    /// forgotten the version from which to go on.
    pub passing: bool,
    pub then: Then,
}

/// Of the watch of pods at `server`.
pub(super) fn of_watcher(error: &watcher::Error, server: &str) -> Failure {
    use watcher::Error;
    match error {
        Error::InitialListFailed(error) => of_request("list", error, server),
        Error::WatchStartFailed(error) => of_request("watch", error, server),
        Error::WatchError(status) => {
            let failure = of_status("watch", status, server);
            let refused = matches!(status.code, 401 | 403);
            Failure {
                passing: !refused,
                then: match failure.then {
                    Then::Reconnect => Then::Reconnect,
                    Then::Resume | Then::Relist => Then::Relist,
                },
                ..failure
            }
        }
        Error::WatchFailed(error) => Failure {
            passing: true,
            then: match error {
                kube::Error::ReadEvents(_) if refused(error).is_none() => Then::Resume,
                // An event was not understood, so what is known may not be what is.
                _ => Then::Relist,
            },
            ..of_request("watch", error, server)
        },
        Error::NoResourceVersion => Failure {
            text: format!("{server} does not answer like a Kubernetes API: no resourceVersion"),
            passing: false,
            then: Then::Resume,
        },
    }
}

fn of_request(verb: &str, error: &kube::Error, server: &str) -> Failure {
    let failure = |text: String, then| Failure {
        text,
        passing: false,
        then,
    };
    match error {
        kube::Error::Api(status) => of_status(verb, status, server),
        kube::Error::Auth(_) => failure(of_client(error), Then::Reconnect),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => failure(
            format!("the API server at {server} answers what is no list of pods; is it one?"),
            Then::Resume,
        ),
        _ => match refused(error) {
            Some(refused @ Refused::Late(_)) => failure(
                format!(
                    "the API server at {server} is slow: {refused}; see its load and the network"
                ),
                Then::Resume,
            ),
            Some(refused @ Refused::Long(_)) => failure(
                format!("the API server at {server} sends {refused}, which is not taken"),
                Then::Resume,
            ),
            None => of_network(error, server),
        },
    }
}

fn of_status(verb: &str, status: &Status, server: &str) -> Failure {
    let said = escape::display(status.message.as_bytes(), MOST_MESSAGE_CHARS);
    let said = if said.is_empty() { "no reason" } else { &said };
    let (text, passing, then) = match status.code {
        401 => (
            format!(
                "the API server at {server} does not accept the credentials (401, {said}): the token of the \
                 service account has expired or is another cluster's; mount one anew, or mend the kubeconfig"
            ),
            false,
            Then::Reconnect,
        ),
        403 => (
            format!(
                "the service account may not {verb} pods: add verb `{verb}` on `pods` to its ClusterRole \
                 ({said})"
            ),
            false,
            Then::Resume,
        ),
        410 => (
            format!("the API server at {server} forgets versions at once (410, {said})"),
            true,
            Then::Relist,
        ),
        429 | 500..=599 => (
            format!(
                "the API server at {server} is overloaded or starting ({}, {said})",
                status.code
            ),
            false,
            Then::Resume,
        ),
        code => (
            format!("the API server at {server} refuses to {verb} pods ({code}, {said})"),
            false,
            Then::Resume,
        ),
    };
    Failure {
        text,
        passing,
        then,
    }
}

fn of_network(error: &kube::Error, server: &str) -> Failure {
    let mut then = Then::Resume;
    let mut text = None;
    for cause in causes(error) {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            then = Then::Reconnect;
            text = Some(of_tls(tls, server));
        } else if let Some(io) = cause.downcast_ref::<io::Error>() {
            text = of_io(io, server).or(text);
        }
    }
    let innermost = || {
        let last = causes(error).last().map(ToString::to_string);
        let last = last.unwrap_or_default();
        let last = escape::display(last.as_bytes(), MOST_MESSAGE_CHARS);
        format!("no connection to the API server at {server}: {last}")
    };
    Failure {
        text: text.unwrap_or_else(innermost),
        passing: false,
        then,
    }
}

fn of_io(error: &io::Error, server: &str) -> Option<String> {
    let remedy = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused; is it up, and is this its address?"
        }
        io::ErrorKind::TimedOut => {
            "no answer to connecting; see routes, firewalls and network policies"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no route; see the network of the node"
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "it closes the connection; is it restarting?",
        _ => return None,
    };
    Some(format!(
        "no connection to the API server at {server}: {remedy}"
    ))
}

fn of_tls(error: &rustls::Error, server: &str) -> String {
    let said = escape::display(error.to_string().as_bytes(), MOST_MESSAGE_CHARS);
    let remedy = match error {
        rustls::Error::InvalidCertificate(_) => {
            "its certificate is not of the CA in the service account or kubeconfig, or not for this name"
        }
        rustls::Error::InvalidMessage(_) => "does it speak HTTPS at this port?",
        _ => "see its certificate, and that of the client",
    };
    format!("no TLS with the API server at {server}: {said}; {remedy}")
}

/// Of the node whose pods are watched.
pub(super) fn of_missing_node(node: &str, server: &str) -> String {
    let node = escape::display(node.as_bytes(), MOST_MESSAGE_CHARS);
    format!(
        "the API server at {server} has no node \"{node}\": set --node-name or NODE_NAME from spec.nodeName"
    )
}

/// No API is configured.
pub(super) fn of_config(error: &InferConfigError) -> String {
    let mut causes = causes(error);
    let kubeconfig = causes.find_map(|cause| cause.downcast_ref::<KubeconfigError>());
    let cause = match kubeconfig {
        Some(KubeconfigError::ReadConfig(error, path))
            if error.kind() != io::ErrorKind::NotFound =>
        {
            let path = escape::display(path.as_os_str().as_encoded_bytes(), MOST_MESSAGE_CHARS);
            format!("the kubeconfig {path} cannot be read: {}", error.kind())
        }
        Some(
            KubeconfigError::ReadConfig(..)
            | KubeconfigError::FindPath
            | KubeconfigError::CurrentContextNotSet,
        )
        | None => match kube::Config::incluster() {
            Err(error) if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                let error = escape::display(error.to_string().as_bytes(), MOST_MESSAGE_CHARS);
                format!("the service account of the pod cannot be used: {error}")
            }
            _ => "this is no pod, and there is no kubeconfig".to_owned(),
        },
        // It may cite the file.
        Some(_) => "the kubeconfig is not valid".to_owned(),
    };
    format!(
        "no Kubernetes API: {cause}; in a pod mount the token of the service account, elsewhere set KUBECONFIG"
    )
}

/// No client can be made of a configuration.
pub(super) fn of_client(error: &kube::Error) -> String {
    let cause = match error {
        kube::Error::Auth(AuthError::ReadTokenFile(error, path)) => {
            let path = escape::display(path.as_os_str().as_encoded_bytes(), MOST_MESSAGE_CHARS);
            format!("the token {path} cannot be read: {}", error.kind())
        }
        kube::Error::Auth(AuthError::AuthExecStart(error)) => {
            format!(
                "the credential plugin of the kubeconfig does not start: {}",
                error.kind()
            )
        }
        // It may cite tokens.
        kube::Error::Auth(_) => "the credentials of the kubeconfig cannot be had".to_owned(),
        kube::Error::RustlsTls(_) => "the CA or the client certificate cannot be used".to_owned(),
        _ => "the configuration cannot be used".to_owned(),
    };
    format!("no connection to the Kubernetes API: {cause}")
}

fn refused(error: &kube::Error) -> Option<Refused> {
    causes(error).find_map(|cause| cause.downcast_ref::<Refused>().copied())
}

/// An error and what is within it.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error)).take(MOST_CAUSES)
}

fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    // `source` of an I/O error skips the error that it was made of.
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(made_of) => Some(made_of),
        None => error.source(),
    }
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
