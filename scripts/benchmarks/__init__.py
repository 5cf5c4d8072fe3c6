"""What publishing costs: measured on the emulator, beside another indexer, and priced."""
