"""What every package uses: arrays of any framework, files, random bits, large products, progress."""
