//! What runtimes and Kubernetes say of containers, up to the names that are told.
//!
//! The first byte says who: Docker's file, a list of containers/storage, CRI, a pod of the API, what says where
//! the first two are.

use std::{cell::LazyCell, path::Path, sync::Arc, time::Duration};

use memtrace::identity::{
    cri::{
        listing::{Listing, MOST_CONTAINERS},
        messages::{ListContainersResponse, ListPodSandboxResponse},
    },
    directory::Directory,
    facts::{RuntimeContainer, Source, Update},
    files::{FilesConfig, docker, root::Root, storage::List},
    kubernetes,
    names::{Names, NamingOptions},
    path::PathIdentity,
};
use prost::Message as _;

use crate::{promise, scratch::Scratch};

/// The container that all are asked for.
const ID: &str = "8ce0d0e1a4b1d5a9f7c3e2b6a0918273645566778899aabbccddeeff00112233";
const MOST_CHARS: usize = 1025;

thread_local! {
    static HOST: LazyCell<Scratch> = LazyCell::new(|| {
        let docker = format!("docker/containers/{ID}/config.v2.json");
        Scratch::new(&[
            &docker,
            "storage/overlay-containers/containers.json",
            "etc/docker/daemon.json",
            "etc/containers/storage.conf",
        ])
    });
}

pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, file)) => of_docker(file),
        Some((1, file)) => of_storage(file),
        Some((2, answers)) => of_cri(answers),
        Some((3, json)) => of_api(json),
        Some((4, file)) => of_places(file),
        _ => {}
    }
}

fn of_docker(file: &[u8]) {
    HOST.with(|host| {
        host.fill(file);
        let found = docker::look(&Root::at(host.path()), Path::new("/docker"), ID, None);
        match found {
            Ok(Some((_, Some(container)))) => {
                assert_eq!(container.container.id.as_deref(), Some(ID));
                told(Update::RuntimeIs(Source::Cri, vec![container]));
            }
            Ok(_) => {}
            Err(error) => promise::printable(&error.to_string()),
        }
    });
}

fn of_storage(file: &[u8]) {
    HOST.with(|host| {
        host.fill(file);
        let root = Root::at(host.path());
        for mut list in List::all(Path::new("/storage")) {
            match list.refresh(&root) {
                Ok(_) => {
                    let found: Vec<RuntimeContainer> = list.get(ID).into_iter().cloned().collect();
                    told(Update::RuntimeIs(Source::Cri, found));
                }
                Err(error) => promise::printable(&error.to_string()),
            }
        }
    });
}

fn of_places(file: &[u8]) {
    HOST.with(|host| {
        host.fill(file);
        let places = FilesConfig::find(Root::at(host.path()));
        promise::printable(&places.describe());
    });
}

/// Containers, with two bytes of length before them, and sandboxes.
fn of_cri(answers: &[u8]) {
    let [low, high, rest @ ..] = answers else {
        return;
    };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (containers, sandboxes) = rest.split_at(length);
    let containers = ListContainersResponse::decode(containers).map(|it| it.containers);
    let sandboxes = ListPodSandboxResponse::decode(sandboxes).map(|it| it.items);
    if let (Ok(containers), Ok(sandboxes)) = (containers, sandboxes) {
        let listed = containers.len() + sandboxes.len();
        let listing = Listing::new(None, sandboxes, containers);
        assert!(listing.containers.len() <= MOST_CONTAINERS);
        assert_eq!(listing.containers.len() + listing.left_out, listed);
        told(Update::RuntimeIs(Source::Cri, listing.containers));
    }
}

fn of_api(json: &[u8]) {
    let annotations = ["team".to_owned()];
    if let Ok(Some(pod)) = kubernetes::pod(json, &annotations) {
        let names = Names::new(
            &PathIdentity::default(),
            Some(&Arc::new(pod.clone())),
            None,
            &NamingOptions::default(),
        );
        check(&names);
        told(Update::Pod(Box::new(pod)));
    }
}

/// The names of the container once that is known.
fn told(update: Update) {
    let mut directory = Directory::new(NamingOptions::default());
    directory.apply(update, Duration::from_secs(1));
    let path = PathIdentity {
        container_id: Some(ID.to_owned()),
        ..PathIdentity::default()
    };
    check(&directory.names(&path));
    directory.forget(Duration::from_secs(1_000_000), |_| false);
}

/// Every text in them may be shown.
fn check(names: &Names) {
    fn texts(value: &serde_json::Value) {
        match value {
            serde_json::Value::String(text) => promise::line(text, MOST_CHARS),
            serde_json::Value::Array(values) => values.iter().for_each(texts),
            serde_json::Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                promise::line(key, MOST_CHARS);
                texts(value);
            }),
            _ => {}
        }
    }
    texts(&serde_json::to_value(names).expect("names are JSON"));
}
