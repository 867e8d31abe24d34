"""Where a network looks: class activation maps, the pointing game, and plots of both."""
