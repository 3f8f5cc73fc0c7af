//! What every component shares: feature gates, health, metrics registry, logging set-up.
