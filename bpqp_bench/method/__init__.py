"""What is measured: the contract of the adapters, the clock, and the test of both."""
