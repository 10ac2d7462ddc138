"""What every room uses: arrays of any framework, files, random bits, large products, progress."""
