"""LoadGen runs and the engines behind them."""
