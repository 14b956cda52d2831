use clap::Parser;

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: AnalyzeArgs,
}

fn args(arguments: &[&str]) -> Result<AnalyzeArgs, clap::Error> {
    Program::try_parse_from([&["analyze"], arguments].concat()).map(|program| program.args)
}

fn analyzed(arguments: &[&str]) -> (Result<Outcome, String>, String, String) {
    let (mut out, mut remarks) = (Vec::new(), Vec::new());
    let result = run(&args(arguments).unwrap(), false, &mut out, &mut remarks);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        result.map_err(|error| error.to_string()),
        text(out),
        text(remarks),
    )
}

fn written(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.csv");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn files_are_needed_unless_thresholds_are_listed() {
    assert!(args(&[]).is_err());
    let (result, out, _) = analyzed(&["--list-thresholds"]);
    assert_eq!(result, Ok(Outcome::Done));
    assert_eq!(out.lines().count(), Thresholds::TABLE.len());
    for row in Thresholds::TABLE {
        assert!(
            out.contains(row.name) && out.contains(row.doc.trim()),
            "{}: {out}",
            row.name
        );
    }
}

#[test]
fn thresholds_are_checked_before_anything_is_read() {
    for wrong in [
        "trend_z",
        "trend_z=x",
        "no_such=1",
        "trend_z=-1",
        "trend_z=NaN",
        "=1",
    ] {
        assert!(args(&["x.csv", "--threshold", wrong]).is_err(), "{wrong}");
    }
    let given = args(&["x.csv", "--threshold", "trend_z=4", "--time-scale", "60"]).unwrap();
    let set = given.thresholds.thresholds().unwrap();
    assert_eq!((set.trend_z, set.time_scale), (4.0, 60.0));
    let error = args(&["x.csv", "--time-scale", "0"])
        .unwrap()
        .thresholds
        .thresholds()
        .map_err(AnalyzeError::Threshold)
        .unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let (_, out, _) = analyzed(&["--list-thresholds", "--json", "--threshold", "trend_z=4"]);
    assert!(
        out.contains(r#""name":"trend_z""#) && out.contains(r#""value":4.0"#),
        "{out}"
    );
}

#[test]
fn every_series_gets_a_final_verdict() {
    let (_kept, path) = written("time_s,series,anon_bytes\n2,a,1\n1,a,1\n1,b,2\n1,b,3\n");
    let (result, out, remarks) = analyzed(&[&path, "--json"]);
    assert_eq!(result, Ok(Outcome::Done));
    let finals = out
        .lines()
        .filter(|line| line.starts_with("{\"type\":\"leak_verdict\","));
    assert_eq!(finals.count(), 2, "{out}");
    assert!(
        remarks.contains("went back 1 times") && remarks.contains("1 samples"),
        "{remarks}"
    );
    let (_, table, _) = analyzed(&[&path]);
    assert!(
        table.contains("SERIES") && table.contains("VERDICT"),
        "{table}"
    );
}

#[test]
fn a_filter_that_fits_nothing_names_what_is_there() {
    let (_kept, path) = written("time_s,series,anon_bytes\n1,web,1\n1,db,2\n");
    let (result, _, _) = analyzed(&[&path, "--series", "x*"]);
    let error = result.unwrap_err();
    assert!(
        error.contains("no series matches x*; there are 2: db, web"),
        "{error}"
    );
    let (result, out, _) = analyzed(&[&path, "--series", "w*", "--json"]);
    assert_eq!(result, Ok(Outcome::Done));
    assert!(out.contains("\"web\"") && !out.contains("\"db\""), "{out}");
}

#[test]
fn files_that_cannot_be_read_or_are_empty_are_named() {
    let (_kept, path) = written("time_s,anon_bytes\n");
    assert!(analyzed(&[&path]).0.unwrap_err().contains("no samples"));
    let missing = format!("{path}.missing");
    assert!(
        analyzed(&[&missing])
            .0
            .unwrap_err()
            .contains(".missing: No such file")
    );
    let directory = analyzed(&["/"]).0.unwrap_err();
    assert!(directory.starts_with("/: "), "{directory}");
}

#[test]
fn a_picture_that_cannot_be_written_is_an_error_with_its_path() {
    let (_kept, path) = written("time_s,anon_bytes\n1,1\n");
    let plot = format!("{path}/out.svg");
    let error = analyzed(&[&path, "--plot", &plot]).0.unwrap_err();
    assert!(error.starts_with(&plot), "{error}");
}

#[test]
fn extremes_of_time_and_bytes_get_a_verdict() {
    let huge = u64::MAX - 1;
    let (_kept, path) = written(&format!(
        "time_s,series,anon_bytes,limit_bytes,cpu,epoch,swap_bytes,kernel_bytes
-253402300799,a,{huge},0,1e9,0,{huge},{huge}
0,a,0,max,1e9,4294967295,{huge},0
60,a,{huge},{huge},0,1,1,1
120,a,,1,nan,,,
253402300799,a,1,1,1e9,1,0,0
"
    ));
    let (kept, plot) = (tempfile::tempdir().unwrap(), "out.svg");
    let plot = kept.path().join(plot);
    let (result, out, _) = analyzed(&[&path, "--json", "--plot", plot.to_str().unwrap()]);
    assert_eq!(result, Ok(Outcome::Done), "{out}");
    let svg = fs::read_to_string(plot).unwrap();
    assert!(roxmltree::Document::parse(&svg).is_ok(), "{svg}");
}
