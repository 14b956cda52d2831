//! A series as one row of blocks.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// At most `width` blocks from the smallest value to the largest; each the largest of its share.
pub fn sparkline(values: &[u64], width: usize) -> String {
    let (Some(low), Some(high)) = (values.iter().min(), values.iter().max()) else {
        return String::new();
    };
    let columns = values.len().min(width.max(1));
    (0..columns)
        .filter_map(|column| {
            let from = column * values.len() / columns;
            let to = (column + 1) * values.len() / columns;
            let value = values.get(from..to)?.iter().max()?;
            let range = high - low;
            let level = if range == 0 {
                0
            } else {
                (u128::from(value - low) * (BLOCKS.len() as u128 - 1) / u128::from(range)) as usize
            };
            BLOCKS.get(level)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_and_largest_value_is_seen_at_any_width() {
        assert_eq!(sparkline(&[1, 2, 3, 4, 5, 6, 7, 8], 80), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[0, 0, 9, 0], 2), "▁█");
        let long: Vec<u64> = (0..1000).collect();
        assert_eq!(sparkline(&long, 40).chars().count(), 40);
        assert!(sparkline(&long, 40).ends_with('█'));
    }

    #[test]
    fn nothing_and_no_change_are_flat() {
        assert_eq!(sparkline(&[], 10), "");
        assert_eq!(sparkline(&[5, 5], 10), "▁▁");
        assert_eq!(sparkline(&[0, u64::MAX], 0), "█");
    }
}
