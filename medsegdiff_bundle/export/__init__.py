"""The model for others: ONNX, for software without torch, and packages for MONAI's zoo."""
