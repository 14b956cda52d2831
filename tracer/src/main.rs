fn main() {
    let l = memtrace::loader::Loader::load(&Default::default());
    match l {
        Ok(l) => {
            for v in &l.verdicts {
                println!(
                    "{:28} {:?} insns={:?}\n     {:?}",
                    v.probe, v.attached, v.verified_instructions, v.rejected
                );
            }
            println!(
                "{:?} maps {:?}",
                l.support.offsets.missing_optional(),
                l.map_bytes()
            );
            std::thread::sleep(std::time::Duration::from_secs(
                std::env::args()
                    .nth(1)
                    .and_then(|a| a.parse().ok())
                    .unwrap_or(1),
            ));
            let mut l = l;
            let c = l.counts().unwrap();
            for (k, v) in c.cgroups() {
                println!("{k} {v:?}");
            }
            for (k, v) in c.processes() {
                println!("{k:?} {v:?}");
            }
            for (k, v) in c.reclaim() {
                println!("{k:?} {v:?}");
            }
            println!("{:?}", c.drops());
        }
        Err(e) => println!("{e}"),
    }
}
