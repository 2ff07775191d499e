"""Accuracy of full LoadGen logs by the metrics of each benchmark's reference script, offline."""
