//! The `slidecast` command: images, keys, discovery, planning, feeds and the report.
