"""Many adapters over one frozen A, of which every row of a batch has its own."""
