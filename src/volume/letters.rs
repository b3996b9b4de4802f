/// `a`, `b` … `z`, `aa` …, as the kernel names SCSI disks; `index` from 0.
pub(crate) fn letters(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(char::from(u8::try_from(rest % 26).unwrap_or(0).saturating_add(b'a')));
        match (rest / 26).checked_sub(1) {
            Some(next) => rest = next,
            None => return letters.iter().rev().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_lettered_as_the_kernel_does() {
        for (index, expected) in [(0, "a"), (25, "z"), (26, "aa"), (27, "ab"), (701, "zz"), (702, "aaa")] {
            assert_eq!(letters(index), expected);
        }
    }
}
