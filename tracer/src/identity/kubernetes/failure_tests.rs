use std::{path::PathBuf, sync::Arc};

use kube::client::AuthError;

use super::*;

const SERVER: &str = "10.0.0.1:443";

fn status(code: u16, message: &str) -> Box<Status> {
    Box::new(Status::failure(message, "Reason").with_code(code))
}

fn listing(error: kube::Error) -> Failure {
    of_watcher(&watcher::Error::InitialListFailed(error), SERVER)
}

fn network(error: io::Error) -> Failure {
    // As hyper nests it.
    listing(kube::Error::Service(Box::new(io::Error::other(error))))
}

#[test]
fn a_refusal_names_the_verb_that_is_missing() {
    let denied = || kube::Error::Api(status(403, "pods is forbidden: User \"system:x\" cannot"));
    let list = listing(denied());
    let watch = of_watcher(&watcher::Error::WatchStartFailed(denied()), SERVER);
    assert!(
        list.text
            .contains("may not list pods: add verb `list` on `pods`")
    );
    assert!(
        watch
            .text
            .contains("may not watch pods: add verb `watch` on `pods`")
    );
    assert!(watch.text.contains("User \"system:x\""), "{}", watch.text);
    assert!(!list.passing && !watch.passing);
}

#[test]
fn refused_credentials_are_read_anew() {
    let failure = listing(kube::Error::Api(status(401, "Unauthorized")));
    assert_eq!(failure.then, Then::Reconnect);
    assert!(failure.text.contains("does not accept the credentials"));
}

#[test]
fn a_forgotten_version_is_nothing_to_speak_of_and_lists_anew() {
    let errors = [
        watcher::Error::WatchError(status(410, "too old")),
        watcher::Error::WatchStartFailed(kube::Error::Api(status(410, "too old"))),
        watcher::Error::InitialListFailed(kube::Error::Api(status(410, "too old"))),
    ];
    for error in errors {
        let failure = of_watcher(&error, SERVER);
        assert_eq!((failure.passing, failure.then), (true, Then::Relist));
    }
}

#[test]
fn a_broken_stream_goes_on_where_it_was() {
    let broken = kube::Error::ReadEvents(io::Error::from(io::ErrorKind::ConnectionReset));
    let failure = of_watcher(&watcher::Error::WatchFailed(broken), SERVER);
    assert_eq!((failure.passing, failure.then), (true, Then::Resume));
}

#[test]
fn an_event_that_is_too_long_or_not_understood_lists_anew() {
    let long = kube::Error::ReadEvents(io::Error::other(Refused::Long(1 << 20)));
    let garbage = serde_json::from_str::<u8>("{").unwrap_err();
    for error in [long, kube::Error::SerdeError(garbage)] {
        let failure = of_watcher(&watcher::Error::WatchFailed(error), SERVER);
        assert_eq!(failure.then, Then::Relist);
    }
}

#[test]
fn networks_say_cause_and_remedy() {
    let cases = [
        (io::ErrorKind::ConnectionRefused, "connection refused"),
        (io::ErrorKind::TimedOut, "network policies"),
        (io::ErrorKind::HostUnreachable, "no route"),
        (io::ErrorKind::UnexpectedEof, "closes the connection"),
    ];
    for (kind, expected) in cases {
        let failure = network(io::Error::from(kind));
        assert!(failure.text.contains(expected), "{}", failure.text);
        assert!(failure.text.contains(SERVER));
        assert_eq!(failure.then, Then::Resume);
    }
    let dns = network(io::Error::other("failed to lookup address information"));
    assert!(dns.text.contains("failed to lookup"), "{}", dns.text);
}

#[test]
fn tls_says_which_certificate() {
    let unknown = rustls::CertificateError::UnknownIssuer;
    let other = rustls::CertificateError::Other(rustls::OtherError(Arc::new(io::Error::other(""))));
    for error in [unknown, other] {
        let error = rustls::Error::InvalidCertificate(error);
        let failure = network(io::Error::other(error));
        assert!(failure.text.contains("not of the CA"), "{}", failure.text);
        assert_eq!(failure.then, Then::Reconnect);
    }
    let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    let failure = network(io::Error::other(plain));
    assert!(failure.text.contains("does it speak HTTPS"));
}

#[test]
fn slow_and_endless_answers_are_told_as_such() {
    let late = Refused::Late(std::time::Duration::from_secs(30));
    let failure = listing(kube::Error::Service(Box::new(late)));
    assert!(
        failure.text.contains("is slow: no answer within 30 s"),
        "{}",
        failure.text
    );
    let failure = listing(kube::Error::Service(Box::new(Refused::Long(32 << 20))));
    assert!(
        failure.text.contains("more than 32 MiB"),
        "{}",
        failure.text
    );
}

#[test]
fn words_of_a_server_are_escaped_and_cut() {
    let message = format!("\u{1b}[31m{}", "x".repeat(10_000));
    for code in [401, 403, 404, 410, 500, 503, 999] {
        let text = listing(kube::Error::Api(status(code, &message))).text;
        assert!(text.chars().count() < 600, "{code}");
        assert!(!text.contains('\u{1b}'), "{code}");
    }
}

#[test]
fn credentials_are_never_repeated() {
    let output = std::process::Output {
        status: std::process::ExitStatus::default(),
        stdout: b"token-s3cret".to_vec(),
        stderr: Vec::new(),
    };
    let run = AuthError::AuthExecRun {
        cmd: "plugin --key s3cret".to_owned(),
        out: Box::new(output),
    };
    let exec = AuthError::AuthExec("s3cret".to_owned());
    for error in [run, exec] {
        let failure = listing(kube::Error::Auth(error));
        assert!(!failure.text.contains("s3cret"), "{}", failure.text);
    }
    let missing = io::Error::from(io::ErrorKind::NotFound);
    let path = PathBuf::from("/var/run/token");
    let failure = listing(kube::Error::Auth(AuthError::ReadTokenFile(missing, path)));
    assert!(failure.text.contains("/var/run/token"), "{}", failure.text);
}
