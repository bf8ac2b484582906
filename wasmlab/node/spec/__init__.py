"""What a Pod asks for, read and checked as the kubelet reads it; pure, every module of it."""
