//! Places for compressed clusters: one right behind the other, in runs of host clusters that hold nothing else.
//!
//! QEMU's own encoder gives each compressed cluster that comes after an uncompressed one a host cluster of its own. Here those of
//! one kind go on where they ended before: a run is taken behind everything else when the last one is full, larger each time, so
//! that what stays free at its end hardly counts.

/// A run is at most this long, and at most this part of what is packed already.
const LONGEST_RUN: u64 = 4 << 20;
const PART: u64 = 16;

/// The current run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packed {
    /// Where the next bytes go.
    at: u64,
    /// Where the run ends: at a cluster's start.
    end: u64,
    /// Bytes placed so far.
    total: u64,
}

impl Packed {
    /// A place for `len` bytes in a file that is in use up to `next`, at a cluster's start, which moves if more is needed.
    pub(super) fn place(&mut self, len: u64, cluster: u64, next: &mut u64) -> u64 {
        if self.end - self.at < len {
            if self.end == *next {
                // Nothing came in between: the run grows, and not a byte is lost.
                self.end = (self.at + len).next_multiple_of(cluster);
            } else {
                let run = (self.total / PART).min(LONGEST_RUN).max(len).next_multiple_of(cluster);
                (self.at, self.end) = (*next, *next + run);
            }
            *next = self.end;
        }
        let host = self.at;
        self.at += len;
        self.total += len;
        host
    }

    /// Starts the next bytes in the next cluster.
    pub(super) fn skip_cluster(&mut self, cluster: u64) {
        self.at = self.at.next_multiple_of(cluster).min(self.end);
    }

    /// Where the next bytes go.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// The first offset that may still get bytes, in a file that is in use up to `next`.
    pub(super) const fn floor(&self, next: u64) -> u64 {
        if self.at < self.end { self.at } else { next }
    }

    /// Gives back the clusters that the run did not use, if it is the last thing in a file in use up to `next`.
    pub(super) fn close(&mut self, cluster: u64, next: &mut u64) {
        if self.end == *next {
            *next = self.at.next_multiple_of(cluster);
        }
        (self.at, self.end) = (*next, *next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u64 = 65_536;

    #[test]
    fn one_kind_alone_is_dense() {
        let (mut packed, mut next) = (Packed::default(), 3 * CLUSTER);
        packed.close(CLUSTER, &mut next);
        let mut at = next;
        for len in [1, 65_000, 65_536, 1000, 30_000, 40_000] {
            assert_eq!(packed.place(len, CLUSTER, &mut next), at);
            at += len;
            assert_eq!(next, at.next_multiple_of(CLUSTER));
        }
    }

    #[test]
    fn two_kinds_keep_apart_and_lose_little() {
        let (mut packed, mut next) = (Packed::default(), 2 * CLUSTER);
        packed.close(CLUSTER, &mut next);
        let (mut plain, mut bytes, start) = (0, 0, next);
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for n in 0..10_000 {
            let len = 500 + n * 7919 % 60_000;
            taken.push((packed.place(len, CLUSTER, &mut next), len));
            bytes += len;
            if n % 3 == 0 {
                taken.push((next, CLUSTER));
                next += CLUSTER;
                plain += CLUSTER;
            }
        }
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        let lost = next - start - plain - bytes;
        assert!(lost < bytes / 50, "{lost} of {bytes}");
    }

    #[test]
    fn what_a_run_did_not_use_is_given_back() {
        let (mut packed, mut next) = (Packed::default(), CLUSTER);
        packed.close(CLUSTER, &mut next);
        packed.place(10, CLUSTER, &mut next);
        next += CLUSTER;
        packed.place(60_000, CLUSTER, &mut next);
        packed.place(60_000, CLUSTER, &mut next);
        assert_eq!(packed.floor(next), packed.at());
        packed.close(CLUSTER, &mut next);
        assert_eq!((next, packed.floor(next)), (4 * CLUSTER, 4 * CLUSTER));
    }
}
