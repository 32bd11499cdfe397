"""Small helpers of the tools."""
