//! A synthetic Debian guest from VMware: planned, fixed, and planned again.
