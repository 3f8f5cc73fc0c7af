//! The one door to the API: in-process or HTTPS, informers, work queue, leases, events.
