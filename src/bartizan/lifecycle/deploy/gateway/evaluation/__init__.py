"""What guards on input are worth: measured at release, on rows that training did not see."""
