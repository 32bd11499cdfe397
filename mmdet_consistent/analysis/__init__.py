"""Tables and pictures of detectors' results."""
