//! Recordings as CSV: a header that names the columns, a row a sample.

use std::io::Read;

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::{
    history::{Column, History, Row},
    number::{Wrong, cell, number, time_ms},
    read::{ReadError, Source},
};

const TIME: &str = "time_s";
const SERIES: &str = "series";
const COLUMNS: [(&str, Column); 10] = [
    ("anon_bytes", Column::Anon),
    ("file_bytes", Column::File),
    ("shmem_bytes", Column::Shmem),
    ("kernel_bytes", Column::Kernel),
    ("usage_bytes", Column::Usage),
    ("working_set_bytes", Column::WorkingSet),
    ("limit_bytes", Column::Limit),
    ("swap_bytes", Column::Swap),
    ("cpu", Column::CpuRate),
    ("epoch", Column::Epoch),
];

/// What the header says: which cell is what.
struct Header {
    time: usize,
    series: Option<usize>,
    values: Vec<(usize, &'static str, Column)>,
}

/// Reads CSV into `history`. Without a column `series` everything is of one series, named after the
/// source.
///
/// # Errors
/// What cannot be read, a header without time and memory or with something else, and rows that do
/// not fit it, with their line.
pub fn read(input: impl Read, source: &Source, history: &mut History) -> Result<(), ReadError> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(false)
        .from_reader(input);
    let mut record = ByteRecord::new();
    if !reader
        .read_byte_record(&mut record)
        .map_err(|error| broken(source, error))?
    {
        return Err(source.refused("is empty"));
    }
    let header = Header::read(&record, source)?;
    let unnamed = match header.series {
        Some(_) => None,
        None => history
            .place(source.name.as_bytes())
            .map_err(|error| source.refused(error))?,
    };
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| broken(source, error))?
    {
        let line = || record.position().map_or(0, csv::Position::line);
        let wrong = |column, at: usize, wrong: Wrong| {
            source.cell(line(), column, record.get(at).unwrap_or_default(), wrong)
        };
        let text = record.get(header.time).unwrap_or_default();
        let seconds = number(text).map_err(|error| wrong(TIME, header.time, error))?;
        let time = time_ms(seconds.unwrap_or(f64::NAN))
            .map_err(|error| wrong(TIME, header.time, error))?;
        let mut row = Row::default();
        for (at, name, column) in &header.values {
            let value = cell(*column, record.get(*at).unwrap_or_default())
                .map_err(|error| wrong(name, *at, error))?;
            if let Some(place) = row.get_mut(*column as usize) {
                *place = value;
            }
        }
        let place = match header.series.and_then(|at| record.get(at)) {
            Some(name) => history.place(name),
            None => Ok(unnamed),
        };
        place
            .and_then(|place| history.add(place, time, &row))
            .map_err(|error| source.at(line(), error))?;
    }
    Ok(())
}

impl Header {
    fn read(record: &ByteRecord, source: &Source) -> Result<Header, ReadError> {
        let refused = |what: String| source.at(1, format!("{what}\n{}", known()));
        if record
            .iter()
            .all(|cell| matches!(number(cell), Ok(Some(_))))
        {
            return Err(refused(
                "no header: the first line names the columns".into(),
            ));
        }
        let mut time = None;
        let mut series = None;
        let mut values: Vec<(usize, &'static str, Column)> = Vec::new();
        for (at, cell) in record.iter().enumerate() {
            let name = cell.trim_ascii();
            let shown = source.shown(name);
            let twice = if name == TIME.as_bytes() {
                time.replace(at).is_some()
            } else if name == SERIES.as_bytes() {
                series.replace(at).is_some()
            } else {
                let row = COLUMNS.iter().find(|(known, _)| known.as_bytes() == name);
                let (name, column) =
                    row.ok_or_else(|| refused(format!("the column {shown} is not known")))?;
                values.push((at, name, *column));
                values
                    .iter()
                    .filter(|(_, _, other)| other == column)
                    .count()
                    > 1
            };
            if twice {
                return Err(refused(format!("the column {shown} is there twice")));
            }
        }
        let time = time.ok_or_else(|| refused(format!("the column {TIME} is missing")))?;
        if !values.iter().any(|(_, _, column)| column.is_memory()) {
            return Err(refused("no column with memory".into()));
        }
        Ok(Header {
            time,
            series,
            values,
        })
    }
}

fn known() -> String {
    let memory = |wanted: bool| {
        let names: Vec<&str> = COLUMNS
            .iter()
            .filter(|(_, column)| column.is_memory() == wanted)
            .map(|(name, _)| *name)
            .collect();
        names.join(", ")
    };
    format!(
        "needed: {TIME} and at least one of {}\nalso known: {SERIES}, {}",
        memory(true),
        memory(false)
    )
}

fn broken(source: &Source, error: csv::Error) -> ReadError {
    let line = error.position().map_or(0, csv::Position::line);
    match error.into_kind() {
        ErrorKind::Io(error) => source.io(error),
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => source.at(
            line,
            format!("{len} cells where the header has {expected_len}"),
        ),
        _ => source.at(line, "is not CSV"),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
