use std::fs;

use super::*;

const WEB: &str = "2f5bcf170001a3f1103dd073cf3ea0c7a170927dc11b44f5c7eb1bcdae3b17f5";
const BRIEF: &str = "ef4665202f3af6363f91a87bcd8fe44b728e484dcfae0d87252cabca70587485";
/// As Podman 4.3.1 wrote it.
const PODMAN: &str = r#"[{"id":"2f5bcf170001a3f1103dd073cf3ea0c7a170927dc11b44f5c7eb1bcdae3b17f5","names":["web"],
"image":"170a1e90f8436daa6778aeea3926e716928826c215ca23a8dfd8055f663f9428",
"layer":"d59ad837f26e13fd71a814c40be9fbfc1e4bf16c48e442c4c0ee592568cebca5",
"metadata":"{\"image-name\":\"docker.io/library/redis:7\",\"image-id\":\"170a1e90f8436daa6778aeea3926e716928826c215ca23a8dfd8055f663f9428\",\"name\":\"web\",\"created-at\":1795281157}",
"created":"2026-11-21T17:12:37.456300104Z","flags":{"MountLabel":"","ProcessLabel":""}},
{"id":"ef4665202f3af6363f91a87bcd8fe44b728e484dcfae0d87252cabca70587485","names":["web2"],"image":"",
"layer":"b44b16d240be539f6f16af55d8d4acef802a4e1239d3bda228ebb1a949d8c324",
"metadata":"{\"image-name\":\"\",\"image-id\":\"\",\"name\":\"web2\",\"created-at\":1795281157}",
"created":"2026-11-21T17:12:37.753182787Z","flags":{"MountLabel":"","ProcessLabel":"","Volatile":true}}]"#;
/// A sandbox and a container by the fields that CRI-O writes.
const CRIO: &str = r#"[{"id":"2f5bcf170001a3f1103dd073cf3ea0c7a170927dc11b44f5c7eb1bcdae3b17f5",
"names":["k8s_POD_cart-0_prod_3f0d9e9c_0","k8s_cart-0_prod_3f0d9e9c_0"],"image":"aa","layer":"l1",
"metadata":"{\"pod-name\":\"k8s_cart-0_prod_3f0d9e9c_0\",\"pod-id\":\"2f5bcf170001a3f1103dd073cf3ea0c7a170927dc11b44f5c7eb1bcdae3b17f5\",\"image-name\":\"registry.k8s.io/pause:3.9\",\"image-id\":\"aa\",\"name\":\"k8s_POD_cart-0_prod_3f0d9e9c_0\",\"metadata-name\":\"cart-0\",\"uid\":\"3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d\",\"namespace\":\"prod\",\"created-at\":1,\"pod\":true}"},
{"id":"ef4665202f3af6363f91a87bcd8fe44b728e484dcfae0d87252cabca70587485","names":["k8s_app_cart-0_prod_3f0d9e9c_2"],
"image":"bb","layer":"l2",
"metadata":"{\"pod-name\":\"k8s_cart-0_prod_3f0d9e9c_0\",\"pod-id\":\"2f5bcf170001a3f1103dd073cf3ea0c7a170927dc11b44f5c7eb1bcdae3b17f5\",\"image-name\":\"quay.io/shop/cart:1\",\"image-id\":\"bb\",\"name\":\"k8s_app_cart-0_prod_3f0d9e9c_2\",\"metadata-name\":\"app\",\"created-at\":2,\"attempt\":2}"}]"#;

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path()).unwrap();
        host
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("storage/overlay-containers")
    }

    /// As the library does.
    fn write(&self, text: &str) {
        fs::write(self.path().join("new"), text).unwrap();
        fs::rename(self.path().join("new"), self.path().join(FILES[0])).unwrap();
    }

    fn root(&self) -> Root {
        Root::at(self.0.path())
    }

    fn list(&self) -> List {
        let mut lists = List::all(Path::new("/storage"));
        lists.retain(|list| list.path == Path::new("/storage/overlay-containers/containers.json"));
        lists.pop().unwrap()
    }
}

fn listed(text: &str) -> List {
    let host = Host::new();
    host.write(text);
    let mut list = host.list();
    assert_eq!(list.refresh(&host.root()).unwrap(), 0);
    list
}

#[test]
fn containers_of_podman_have_name_and_image() {
    let list = listed(PODMAN);
    let web = list.get(WEB).unwrap();
    assert_eq!(web.container.name, "web");
    assert_eq!(web.container.runtime, Some(Runtime::Podman));
    assert_eq!(
        web.container.image.as_deref(),
        Some("docker.io/library/redis:7")
    );
    assert!(
        web.container
            .image_id
            .as_ref()
            .unwrap()
            .starts_with("170a1e")
    );
    assert_eq!(web.pod, None);
    // Of a root file system, without an image.
    let brief = list.get(BRIEF).unwrap();
    assert_eq!(brief.container.name, "web2");
    assert_eq!(
        (&brief.container.image, &brief.container.image_id),
        (&None, &None)
    );
}

#[test]
fn containers_of_cri_o_have_the_pod_of_their_sandbox() {
    let list = listed(CRIO);
    let (sandbox, app) = (list.get(WEB).unwrap(), list.get(BRIEF).unwrap());
    assert_eq!(sandbox.container.kind, ContainerKind::Sandbox);
    assert_eq!(app.container.kind, ContainerKind::App);
    assert_eq!(app.container.name, "app");
    assert_eq!(app.container.runtime, Some(Runtime::CriO));
    assert_eq!(app.container.restart_count, Some(2));
    let pod = app.pod.as_ref().unwrap();
    assert_eq!((&*pod.namespace, &*pod.name), ("prod", "cart-0"));
    assert_eq!(pod.uid, "3f0d9e9c-9c6e-4b2a-8a3e-0c6a9f1b2c3d");
    assert_eq!(pod.sandbox_id.as_deref(), Some(WEB));
}

#[test]
fn a_list_is_read_again_when_it_was_written() {
    let host = Host::new();
    let mut list = host.list();
    list.refresh(&host.root()).unwrap();
    assert!(list.get(WEB).is_none(), "there is no list yet");
    host.write(PODMAN);
    list.refresh(&host.root()).unwrap();
    assert!(list.get(WEB).is_some());
    host.write(&PODMAN.replace("\"names\":[\"web\"]", "\"names\":[\"renamed\"]"));
    list.refresh(&host.root()).unwrap();
    assert_eq!(list.get(WEB).unwrap().container.name, "renamed");
    // Written badly: what was known stays.
    host.write("[{");
    let error = list.refresh(&host.root()).unwrap_err().to_string();
    assert!(
        error.starts_with("/storage/overlay-containers/containers.json: "),
        "{error}"
    );
    assert!(list.get(WEB).is_some());
    host.write("");
    list.refresh(&host.root()).unwrap();
    assert!(list.get(WEB).is_none());
}

#[test]
fn entries_without_a_sound_id_or_description_break_nothing() {
    let strange = PODMAN
        .replace(WEB, "../../../etc")
        .replace(r#"{\"image-name\":\"\","#, "not JSON");
    let list = listed(&strange);
    assert_eq!(list.containers.len(), 1);
    assert_eq!(list.get(BRIEF).unwrap().container.name, "web2");
}

#[test]
fn the_newest_of_too_many_are_taken() {
    let host = Host::new();
    let entry = |number| format!(r#"{{"id":"{number:064x}","names":["n"],"image":"","layer":""}}"#);
    let entries: Vec<_> = (0..MOST_CONTAINERS + 3).map(entry).collect();
    host.write(&format!("[{}]", entries.join(",")));
    let mut list = host.list();
    assert_eq!(list.refresh(&host.root()).unwrap(), 3);
    assert_eq!(list.containers.len(), MOST_CONTAINERS);
    assert!(list.get(&format!("{:064x}", MOST_CONTAINERS + 2)).is_some());
    assert_eq!(list.refresh(&host.root()).unwrap(), 0, "it is told once");
}
