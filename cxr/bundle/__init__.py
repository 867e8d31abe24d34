"""The exported model: what lies in its folder, and what predicts with it, without torch."""
