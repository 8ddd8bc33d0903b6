//! Terms: what users must accept before they are served.
