"""What is sent: scenarios, texts, arrival times, recordings, and the requests made of them."""
