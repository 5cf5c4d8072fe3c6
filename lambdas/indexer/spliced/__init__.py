"""Documents too large to write whole: kept in segments, each compressed apart, joined into one file."""
