"""From finished runs to a submission: predict the test images, decide, write."""
