//! Tables as Docker prints them: columns at least ten wide, three spaces apart, the last one as long as it is.

const COLUMN_CHARS_MIN: usize = 10;
const GAP_CHARS: usize = 3;

/// Lines up rows below a header. Rows that are shorter than the header have empty cells at the end.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        let longest = cells.chain([header[column].chars().count()]).max().unwrap_or_default();
        (longest + GAP_CHARS).max(COLUMN_CHARS_MIN)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.into_iter().zip(&widths).enumerate() {
            line.push_str(cell);
            if column + 1 < N {
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        line
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(header)).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines are Docker's own, from `docker service ls`.
    #[test]
    fn tables_are_lined_up_as_docker_does() {
        let row = ["4xhmd8hf9lyp", "web", "replicated", "2/3", "web:latest", ""].map(str::to_owned);
        assert_eq!(
            table(["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"], &[row]),
            [
                "ID             NAME      MODE         REPLICAS   IMAGE        PORTS",
                "4xhmd8hf9lyp   web       replicated   2/3        web:latest   ",
            ]
        );
    }
}
