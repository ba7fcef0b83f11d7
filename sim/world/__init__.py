"""The simulated cluster at work: workers, tasks, blocks, losses, on a virtual clock. It obeys any execution model."""
