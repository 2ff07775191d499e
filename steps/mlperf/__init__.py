"""What MLCommons defines: rounds, LoadGen's logs, accuracy.txt, ROUGE, published results."""
