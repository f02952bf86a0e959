//! The library of tcpwatch.
