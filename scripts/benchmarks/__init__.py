"""The cost of publishing: measured on the emulator, compared with rattler's index_s3, and priced."""
