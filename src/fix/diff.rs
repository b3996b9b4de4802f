//! Small unified diffs for the plan: what a reader needs to judge a change, not what `patch` needs.

use crate::limits;

const CONTEXT: usize = 2;

/// The lines that differ between two texts, with a little context. Bytes that are no UTF-8 are shown as U+FFFD.
pub(super) fn unified(before: &[u8], after: &[u8]) -> String {
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    let old: Vec<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let mut out = String::new();
    for hunk in hunks(&old, &new) {
        out.push_str(&hunk);
        if out.len() > limits::MAX_DIFF {
            let cut = (0..=limits::MAX_DIFF).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
            out.truncate(cut);
            out.push_str("\n…\n");
            break;
        }
    }
    out
}

/// One changed block: lines `old` of the one text stand where lines `new` of the other do.
struct Block {
    old: std::ops::Range<usize>,
    new: std::ops::Range<usize>,
}

fn hunks(old: &[&str], new: &[&str]) -> Vec<String> {
    let mut hunks = Vec::new();
    let mut blocks = blocks(old, new).into_iter().peekable();
    while let Some(first) = blocks.next() {
        let (from_old, from_new) = (first.old.start.saturating_sub(CONTEXT), first.new.start.saturating_sub(CONTEXT));
        let mut body = String::new();
        let mut line = |mark: char, text: &str| {
            body.push(mark);
            body.push_str(text);
            body.push('\n');
        };
        old[from_old..first.old.start].iter().for_each(|text| line(' ', text));
        let mut block = first;
        let (end_old, end_new) = loop {
            old[block.old.clone()].iter().for_each(|text| line('-', text));
            new[block.new.clone()].iter().for_each(|text| line('+', text));
            let gap_end = (block.old.end + 2 * CONTEXT).min(old.len());
            match blocks.next_if(|next| next.old.start <= gap_end) {
                Some(next) => {
                    old[block.old.end..next.old.start].iter().for_each(|text| line(' ', text));
                    block = next;
                }
                None => {
                    let end = (block.old.end + CONTEXT).min(old.len());
                    old[block.old.end..end].iter().for_each(|text| line(' ', text));
                    break (end, block.new.end + (end - block.old.end));
                }
            }
        };
        let header = format!(
            "@@ -{},{} +{},{} @@\n",
            from_old + usize::from(end_old > from_old),
            end_old - from_old,
            from_new + usize::from(end_new > from_new),
            end_new - from_new
        );
        hunks.push(header + &body);
    }
    hunks
}

/// The changed blocks in order. Fixes change lines in place or add some, so a walk that looks a few lines ahead for the next
/// common line is enough; at worst a block is larger than it must be.
fn blocks(old: &[&str], new: &[&str]) -> Vec<Block> {
    const AHEAD: usize = 64;
    let mut blocks: Vec<Block> = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    while at_old < old.len() || at_new < new.len() {
        if old.get(at_old).is_some() && old.get(at_old) == new.get(at_new) {
            (at_old, at_new) = (at_old + 1, at_new + 1);
            continue;
        }
        let common = (1..=AHEAD).find_map(|sum| {
            (0..=sum)
                .map(|skip| (at_old + skip, at_new + (sum - skip)))
                .find(|(o, n)| old.get(*o).is_some_and(|line| new.get(*n) == Some(line)))
        });
        let (end_old, end_new) = common.unwrap_or((old.len(), new.len()));
        blocks.push(Block { old: at_old..end_old, new: at_new..end_new });
        (at_old, at_new) = (end_old, end_new);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_changed_with_context() {
        let old = b"a\nb\nc\nd\ne\nf\ng\nh\ni\n";
        let new = b"a\nb\nC\nd\ne\nf\ng\nh\ni\nj\n";
        assert_eq!(unified(old, new), "@@ -1,5 +1,5 @@\n a\n b\n-c\n+C\n d\n e\n@@ -8,2 +8,3 @@\n h\n i\n+j\n");
        assert_eq!(unified(b"", b"x\n"), "@@ -0,0 +1,1 @@\n+x\n");
        assert_eq!(unified(b"x\n", b"y"), "@@ -1,1 +1,1 @@\n-x\n+y\n");
        assert_eq!(unified(b"same\n", b"same\n"), "");
        assert_eq!(unified(b"1\n2\n3\n", b"0\n1\n3\n"), "@@ -1,3 +1,3 @@\n+0\n 1\n-2\n 3\n");
    }

    #[test]
    fn is_bounded() {
        let old: String = (0..20_000).map(|n| format!("old {n}\n")).collect();
        let new: String = (0..20_000).map(|n| format!("né {n}\n")).collect();
        let diff = unified(old.as_bytes(), new.as_bytes());
        assert!(diff.len() <= limits::MAX_DIFF + 8 && diff.ends_with("…\n"));
    }

    proptest::proptest! {
        #[test]
        fn its_lines_rebuild_both_texts(old in "([ab]\n){0,12}", new in "([abc]\n){0,12}") {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
            let mut rebuilt: Vec<&str> = Vec::new();
            let mut at = 0;
            for block in blocks(&old, &new) {
                rebuilt.extend(&old[at..block.old.start]);
                rebuilt.extend(&new[block.new.clone()]);
                at = block.old.end;
            }
            rebuilt.extend(&old[at..]);
            proptest::prop_assert_eq!(rebuilt, new);
        }
    }
}
