//! Lists on a terminal and as JSON.

use std::io::{self, Write};

use serde::Serialize;

/// Writes `rows` under `heads`, in columns as wide as they need to be.
pub(super) fn write<const N: usize>(
    out: &mut dyn Write,
    heads: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    });
    let mut line = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())
    };
    line(heads)?;
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()))?;
    }
    Ok(())
}

/// Writes `value` as JSON, for scripts.
pub(super) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let mut out = Vec::new();
        let rows = [
            ["1".to_owned(), "a…@e….org".to_owned()],
            ["222".to_owned(), String::new()],
        ];
        write(&mut out, ["id", "to"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id   to\n1    a…@e….org\n222\n"
        );
    }
}
