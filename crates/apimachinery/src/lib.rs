//! Group, version and kind, metadata, `Value` trees, Quantity, Time, selectors, field paths, `Status`, `ErrorList`, `Clock`.
