"""Upstream YOLOv5: its genuine checkout (`checkout`, `install`), our patches (`patching`), the one door (`gateway`)."""
