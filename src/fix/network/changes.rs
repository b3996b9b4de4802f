//! What happens to one file of the network's configuration, for people.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

/// What is done to a file, and what is left in it.
#[derive(Debug)]
pub(super) struct Changes {
    /// The driver of the cards that the guest gets.
    driver: &'static str,
    done: Vec<String>,
    /// What is left, and why.
    pub(super) left: Vec<(String, String)>,
}

impl Changes {
    pub(super) fn new(driver: &'static str) -> Self {
        Self { driver, done: Vec::new(), left: Vec::new() }
    }

    fn did(&mut self, what: String) {
        if !self.done.contains(&what) {
            self.done.push(what);
        }
    }

    pub(super) fn address(&mut self) {
        self.did("follow the card to its new address".to_owned());
    }

    pub(super) fn driver(&mut self) {
        self.did(format!("match the driver {}", self.driver));
    }

    pub(super) fn dropped(&mut self, mac: &str) {
        self.did(format!("no longer match {mac}"));
    }

    pub(super) fn other(&mut self, what: &str) {
        self.did(what.to_owned());
    }

    pub(super) fn place(&mut self, place: &str) {
        self.did(format!("no longer match {place}"));
    }

    pub(super) fn leave(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let left = (what.into(), why.into());
        if !self.left.contains(&left) {
            self.left.push(left);
        }
    }

    /// Something matches no card on KVM, and is not to be edited.
    pub(super) fn conservative(&mut self, what: &str) {
        self.leave(format!("{what} matches no card on KVM"), "--network-fixes conservative only adds files");
    }

    /// All that is done, in one line.
    pub(super) fn what(&self) -> String {
        self.done.join("; ")
    }
}
